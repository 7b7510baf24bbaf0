"""What a plugin library can do on this machine, and what could not be tried here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tdc_deploy.diagnosis import Check
from tdc_deploy.errors import TdcError
from tdc_deploy.plugin.library import Library
from tdc_deploy.plugin.registry import try_registration


def check_plugin(path: Path) -> list[Check]:
    """Load the library, ask it what it is, and register it with TensorRT.

    Raises:
        TdcError: it cannot be loaded.
    """
    library = Library(path)
    return [_build(library), _tactics(library), _gpu(library), _tensorrt(path)]


def _build(library: Library) -> Check:
    info = library.build_info()
    text = f"version {info['version']}, kernels {info['kernel_revision']}"
    if info["emulated"]:
        return Check("build", "ok", f"{text}, emulated", "its kernels run on the CPU, for tests")
    cuda = f"{info['cuda_runtime'] // 1000}.{info['cuda_runtime'] % 1000 // 10}"
    architectures = info["architectures"].replace(",", ", ")
    return Check("build", "ok", f"{text}, CUDA {cuda}, architectures {architectures}")


def _tactics(library: Library) -> Check:
    families = Counter(library.decode(number).family for number in library.tactics())
    counts = ", ".join(f"{count} {family}" for family, count in families.items())
    return Check("tactics", "ok", f"{families.total()}: {counts}")


def _gpu(library: Library) -> Check:
    if library.build_info()["emulated"]:
        return Check("GPU", "missing", "an emulated build", "no kernel was run on a GPU")
    try:
        device = library.current_device()
    except TdcError as error:
        return Check("GPU", "missing", error.received.split(": ", 1)[-1], "no kernel was run")
    found = (
        f"compute capability {device.compute_capability / 10}, "
        f"{device.multiprocessors} multiprocessors"
    )
    return Check("GPU", "ok", found)


def _tensorrt(path: Path) -> Check:
    tried = try_registration(path)
    if tried is None:
        return Check("TensorRT", "missing", "not installed", "not registered with TensorRT")
    if tried.problem:
        return Check(
            "TensorRT", "broken", tried.problem, "engines with this plugin cannot be built"
        )
    return Check("TensorRT", "ok", f"{tried.tensorrt}: {', '.join(tried.creators)}")
