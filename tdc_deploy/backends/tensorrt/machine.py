"""What engines are built with and run on here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from tdc_deploy.backends.tensorrt.api import tensorrt, version_of
from tdc_deploy.backends.tensorrt.compatibility import (
    check_library,
    least_device,
    other_gpus,
)
from tdc_deploy.backends.tensorrt.embedded import Embedding
from tdc_deploy.backends.tensorrt.embedded_plugin import register_embedded
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.cache import cache_folder, make_folder
from tdc_deploy.files import files_sha256
from tdc_deploy.plugin.driver import driver_cuda
from tdc_deploy.plugin.locate import find_plugin
from tdc_deploy.plugin.sources import source_hash, source_root
from tdc_deploy.plugin.toolchain import find_nvcc, nvcc_version
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.driver import this_device
from tdc_deploy.progress import Progress
from tdc_deploy.runtime.plugin_library import register_plugin


@dataclass(frozen=True)
class Machine:
    """A TensorRT, the first GPU, and the plugin: its library, which is loaded, or what embeds its kernels.

    `plugin_sha256` is the library's hash, or that of the kernels' sources and of what nvcc says of its
    version. `driver` is the newest CUDA that the GPU's driver knows, such as 12.8.
    """

    tensorrt: str
    tensorrt_major: int
    device: Device
    plugin: Path | None
    plugin_sha256: str
    embedding: Embedding | None = field(default=None, compare=False)
    driver: str = "unknown"

    @property
    def capability(self) -> str:
        """The GPU's compute capability, such as 8.0."""
        major, minor = divmod(self.device.compute_capability, 10)
        return f"{major}.{minor}"

    def timing_cache(self) -> Path:
        """The file that keeps TensorRT's timings for this version, GPU, driver and these kernels, by whose
        tactics' numbers it knows them, in the user's cache; its folder is made.

        Raises:
            TdcError: it cannot be.
        """
        device = "".join(c if c.isalnum() else "-" for c in self.device.name)
        kernels = hashlib.sha256(self.plugin_sha256.encode()).hexdigest()[:16]
        made_for = (self.tensorrt, device, self.capability, f"cuda-{self.driver}", kernels)
        folder = make_folder(cache_folder() / "timing-caches")
        return folder / f"tensorrt-{'-'.join(made_for)}.cache"


def open_machine(options: EngineOptions, progress: Progress) -> Machine:
    """Load TensorRT and the plugin.

    Raises:
        TdcError: something is missing, or this TensorRT lacks what the options ask for.
    """
    trt, device = tensorrt(), this_device()
    version = version_of(trt)
    options.check_version(version)
    known, level = (str(trt.__version__), version[0], device), options.hardware_compatibility
    cuda = driver_cuda()
    driver = "unknown" if cuda is None else f"{cuda[0]}.{cuda[1]}"
    if options.plugin_mode == "embedded":
        register_embedded(trt)
        embedding = Embedding(device, options.precision, least_device(device, level), progress)
        compiler = hashlib.sha256(nvcc_version(find_nvcc()).encode()).hexdigest()[:16]
        kernels = f"embedded {source_hash(source_root())} nvcc {compiler}"
        return Machine(*known, None, kernels, embedding, driver)
    plugin = find_plugin(version[0], other_gpus(level))
    check_library(plugin, device, level)
    register_plugin(trt, plugin)
    return Machine(*known, plugin, files_sha256([plugin]), driver=driver)
