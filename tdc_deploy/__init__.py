"""tdc-deploy: compress a CNN with Tucker-2 ranks chosen by measured latency, fuse it, verify it, ship it.

import tdc_deploy
tdc_deploy.build("model.onnx", "fast.onnx", inputs="samples.npz", latency_budget=0.5)
with tdc_deploy.load("fast.onnx") as session:
    logits = session(image)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdc_deploy.api import build, plan
    from tdc_deploy.artifact import Artifact
    from tdc_deploy.errors import TdcError
    from tdc_deploy.plan_file import Plan
    from tdc_deploy.runtime.session import Session, load

__version__ = "0.1.0"

__all__ = ["Artifact", "Plan", "Session", "TdcError", "build", "load", "plan"]

# Imported on first use: `tdc-deploy --help` and `tdc_deploy.load` need no graph surgery.
_HOME = {
    "Artifact": "tdc_deploy.artifact",
    "Plan": "tdc_deploy.plan_file",
    "Session": "tdc_deploy.runtime.session",
    "TdcError": "tdc_deploy.errors",
    "build": "tdc_deploy.api",
    "load": "tdc_deploy.runtime.session",
    "plan": "tdc_deploy.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
