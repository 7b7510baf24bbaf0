"""What this machine can do, and what is missing for the rest."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.store import Store, default_store_path
from tdc_deploy.types import DENSE, ConvLayer
from tdc_deploy.versions import MISSING, library_versions

# (package or program, what it is for)
OPTIONAL_PACKAGES = (
    ("torch", "needed to export and train models in torch"),
    ("matplotlib", "needed for reports (--report)"),
    ("tritonclient", "needed to write Triton repositories"),
)
OPTIONAL_PROGRAMS = (("nvidia-smi", "no NVIDIA driver: models run on the CPU"),)

PROBE = ConvLayer("probe", 64, 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "float32", 1, (28, 28))


@dataclass(frozen=True)
class Check:
    """One finding; `effect` is what it means for the user."""

    name: str
    status: Literal["ok", "missing", "broken"]
    found: str
    effect: str = ""


def diagnose(store: Path | None = None) -> list[Check]:
    """Every check, the core's first; nothing here raises."""
    return [
        Check("python", "ok", f"{platform.python_version()} at {sys.executable}"),
        *(_library(name, found) for name, found in library_versions().items()),
        _inference(),
        _store(store),
        *(_package(name, use) for name, use in OPTIONAL_PACKAGES),
        *(_program(name, effect) for name, effect in OPTIONAL_PROGRAMS),
    ]


def _library(name: str, found: str) -> Check:
    if found == MISSING:
        return Check(name, "broken", found, f"pip install {name}")
    return Check(name, "ok", found)


def _inference() -> Check:
    """Run and time one convolution: the whole path that planning takes."""
    try:
        # Here, so that a library that is missing is reported and not tripped over.
        import numpy as np

        from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
        from tdc_deploy.profiling.layers import layer_model
        from tdc_deploy.profiling.measure import LAYER

        backend = OnnxRuntimeBackend()
        x = np.zeros((1, PROBE.c_in, *PROBE.in_hw), np.float32)
        timing = backend.measure(layer_model(PROBE, DENSE), {"x": x}, LAYER)
    except (ImportError, TdcError) as error:
        return Check("inference", "broken", str(error), "nothing can be measured or run")
    effect = "" if timing.spread < 0.5 else "something else is busy: times will be noisy"
    device = backend.describe()
    found = (
        f"{device['device']}, {device['cpus']} CPUs: 3x3 conv, 64 channels, 28x28 in "
        f"{timing.median:.3f} ms, spread {timing.spread:.0%}"
    )
    return Check("inference", "ok", found, effect)


def _store(path: Path | None) -> Check:
    where = path or default_store_path()
    try:
        with Store(where) as store:
            return Check("latency store", "ok", f"{where}, {len(store)} measurements")
    except TdcError as error:
        return Check("latency store", "broken", error.received, error.fix)


def _package(name: str, use: str) -> Check:
    if find_spec(name) is None:
        return Check(name, "missing", "not installed", use)
    return Check(name, "ok", "installed")


def _program(name: str, effect: str) -> Check:
    where = shutil.which(name)
    if where is None:
        return Check(name, "missing", "not on the PATH", effect)
    return Check(name, "ok", where)
