"""The GPUs of this machine, asked of NVIDIA's driver itself: no CUDA toolkit and no Python package."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from typing import Any

from tdc_deploy.errors import TdcError

LIBRARY = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
LONGEST_NAME = 128


class Driver:
    """NVIDIA's driver on a machine with at least one GPU; `load` gives its library.

    Raises:
        TdcError: there is no driver or no GPU.
    """

    def __init__(self, load: Callable[[str], Any] | None = None) -> None:
        try:
            self._library = (load or ctypes.CDLL)(LIBRARY)
        except OSError:
            raise _no_gpu(f"no NVIDIA driver ({LIBRARY})") from None
        count = ctypes.c_int()
        started = self._library.cuInit(0) == 0
        if not started or self._library.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
            raise _no_gpu("the NVIDIA driver finds no GPU")
        self.gpus = count.value

    def name(self, gpu: int) -> str:
        """What NVIDIA calls the GPU of this number."""
        name = ctypes.create_string_buffer(LONGEST_NAME)
        self._call("cuDeviceGetName", name, len(name), self._handle(gpu))
        return name.value.decode()

    def attribute(self, gpu: int, attribute: int) -> int:
        """The value of a CUdevice_attribute.

        Raises:
            TdcError: the driver does not tell.
        """
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, self._handle(gpu))
        return value.value

    def cuda_version(self) -> tuple[int, int]:
        """(major, minor) of the newest CUDA that the driver knows."""
        value = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(value))
        return value.value // 1000, value.value % 1000 // 10

    def _handle(self, gpu: int) -> ctypes.c_int:
        handle = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(handle), gpu)
        return handle

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            raise TdcError(
                f"the NVIDIA driver answers {name} with error {code}",
                fix="see whether nvidia-smi works; or name the device, such as --device H200",
            )


def compute_capabilities() -> list[int]:
    """10 * major + minor of each visible GPU; empty where there is no driver or no GPU."""
    try:
        driver = Driver()
        return [
            10 * driver.attribute(gpu, MAJOR) + driver.attribute(gpu, MINOR)
            for gpu in range(driver.gpus)
        ]
    except TdcError:
        return []


def driver_cuda() -> tuple[int, int] | None:
    """(major, minor) of the newest CUDA that this machine's driver knows; None without a GPU."""
    try:
        return Driver().cuda_version()
    except TdcError:
        return None


def _no_gpu(received: str) -> TdcError:
    return TdcError(
        received,
        expected="an NVIDIA GPU in this machine",
        fix="name the device to predict for, such as --device H200",
    )
