"""Whether engines can be built here; asked before any work."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tdc_deploy.backends.tensorrt.options import PluginMode
from tdc_deploy.errors import TdcError
from tdc_deploy.plugin.driver import compute_capabilities, driver_cuda
from tdc_deploy.plugin.locate import find_plugin, installed_tensorrt_major
from tdc_deploy.plugin.toolchain import find_nvcc, nvcc_release
from tdc_deploy.runtime.libraries import cuda_driver


def check_engine_builds(
    model: Path,
    output: Path,
    arguments: Sequence[str] = (),
    plugin_mode: PluginMode = "library",
) -> None:
    """Raise one TdcError that names everything that is missing, and the build that needs none of it.

    `arguments` are more words for that command.
    """
    command = _alternative(model, output, arguments)
    _check(
        f"{output}: a TensorRT engine cannot be built on this machine",
        f"build for ONNX Runtime, which needs none: {command}",
        plugin_mode,
    )


def check_engine_plans(model: Path, plugin_mode: PluginMode = "library") -> None:
    """The same for a plan by times of engines."""
    _check(
        f"{model}: ranks cannot be planned on TensorRT on this machine",
        "plan on ONNX Runtime, which needs none: leave out --backend tensorrt",
        plugin_mode,
    )


def _check(received: str, fix: str, plugin_mode: PluginMode) -> None:
    embedded = plugin_mode == "embedded"
    missing = what_is_missing(plugin=not embedded)
    if embedded:
        missing += _missing_compiler()
    if missing:
        versions, kernels = ("10.9", "nvcc") if embedded else ("8.5", "the plugin library")
        raise TdcError(
            f"{received}; missing: " + "; ".join(missing),
            expected=f"TensorRT {versions} to 11 with its builder, an NVIDIA GPU, and {kernels}",
            fix=fix,
        )


def what_is_missing(plugin: bool = True) -> list[str]:
    """Each thing that is missing, and how to get it; `plugin` says whether the plugin library counts."""
    missing = []
    if find_spec("tensorrt") is None:
        missing.append("the Python package tensorrt (pip install tensorrt)")
    # Not find_spec: packages of other names are in the namespace `cuda` too.
    if not _imports_cuda():
        missing.append("the Python package cuda-python (pip install cuda-python)")
    if not compute_capabilities():
        missing.append("an NVIDIA GPU with its CUDA driver")
    if plugin and not _has_plugin():
        missing.append("the plugin library (tdc-deploy plugin build)")
    return missing


def _missing_compiler() -> list[str]:
    try:
        nvcc = find_nvcc()
    except TdcError:
        return ["nvcc, which compiles the kernels that travel in an engine (CUDA toolkit)"]
    release, driver = nvcc_release(nvcc), driver_cuda()
    if release is None or driver is None or release <= driver:
        return []
    # The driver compiles the PTX, and refuses that of a newer toolkit when the engine is loaded.
    return [
        f"an nvcc that is no newer than the GPU's driver: {nvcc} is of CUDA {release[0]}.{release[1]}, "
        f"the driver knows CUDA up to {driver[0]}.{driver[1]} (set CUDACXX to an older nvcc, or "
        "update the driver)"
    ]


def _imports_cuda() -> bool:
    try:
        cuda_driver()
    except TdcError:
        return False
    return True


def _has_plugin() -> bool:
    if installed_tensorrt_major() is None and find_spec("tensorrt") is not None:
        # From a tar or a system package, which leave no metadata: it is asked once it is imported.
        return True
    try:
        find_plugin()
    except TdcError:
        return False
    return True


def _alternative(model: Path, output: Path, arguments: Sequence[str]) -> str:
    target = output.with_suffix(".onnx")
    if target.absolute() == model.absolute():
        target = output.with_name(f"{output.stem}-fast.onnx")
    words = ["tdc-deploy", "build", str(model), "-o", str(target), *arguments]
    return shlex.join(words)
