"""What is measured on: whether there is a GPU, its name and versions, and the plugin built for it."""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tdc_deploy.plugin.build import build_plugin
from tdc_deploy.plugin.driver import compute_capabilities
from tdc_deploy.plugin.library import Library
from tdc_deploy.plugin.locate import PLUGIN_VARIABLE, find_plugin, installed_tensorrt_major
from tdc_deploy.progress import silent

# The kernels are the same for every TensorRT; without one installed, any will do.
ANY_TENSORRT = 10


def missing() -> str:
    """What keeps this machine from measuring, in a word or two; empty if nothing does."""
    if not compute_capabilities():
        return "no GPU"
    if find_spec("torch") is None:
        return "no torch"
    import torch

    return "" if torch.cuda.is_available() else "no CUDA in torch"


def open_library(path: Path | None) -> Library:
    """The library at `path`, else the one that `$TDC_PLUGIN` names, else one built for this GPU."""
    if path is None and os.environ.get(PLUGIN_VARIABLE):
        path = find_plugin()
    if path is None:
        major = installed_tensorrt_major() or ANY_TENSORRT
        path = build_plugin(tensorrt_major=major, progress=silent)
    return Library(path)


def describe(library: Library) -> dict[str, Any]:
    """What results depend on; results of other machines or builds are not mixed with these."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "plugin": library.build_info(),
    }
