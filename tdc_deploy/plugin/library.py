"""The plugin library's C interface (plugins/include/tdc/c_api.h) through ctypes.

Importing this module loads nothing; `Library` does.
"""

from __future__ import annotations

import ctypes
import json
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.plugin.params import CoreParams, Params

API_VERSION = 1
ERROR_NO_TACTIC = -2
ERROR_NOT_LEGAL = -3
ERROR_NEEDS_GPU = -4
# CUDA's cudaErrorStubLibrary, -InsufficientDriver, -NoDevice; cudaErrorNoKernelImageForDevice.
NO_GPU = (34, 35, 100)
NO_KERNEL_IMAGE = 209
FAMILIES = {1: "fused", 2: "unfused", 3: "channel-first"}
ARITHMETICS = {1: "f16", 2: "tf32", 3: "f32"}
SPLITS = {0: "none", 1: "cluster", 2: "ticket"}


class _Device(ctypes.Structure):
    _fields_ = (
        ("compute_capability", c_int),
        ("shared_bytes", c_size_t),
        ("multiprocessors", c_int),
    )


class _Tactic(ctypes.Structure):
    _fields_ = tuple((name, c_int) for name in ("family", "arithmetic", "config", "split", "parts"))


class _Timing(ctypes.Structure):
    _fields_ = (("warmup", c_int), ("samples", c_int), ("flush_bytes", c_size_t))


@dataclass(frozen=True)
class Device:
    """What of a GPU decides which tactics are legal; compute_capability is 10 * major + minor."""

    compute_capability: int
    shared_bytes: int
    multiprocessors: int


@dataclass(frozen=True)
class Tactic:
    """One kernel configuration; the words are those of FAMILIES, ARITHMETICS and SPLITS."""

    number: int
    family: str
    arithmetic: str
    config: int
    split: str
    parts: int


class LibraryError(RuntimeError):
    """A call that the library or CUDA refused; `code` is the C interface's."""

    def __init__(self, what: str, code: int, reason: str) -> None:
        self.code = code
        super().__init__(f"{what}: {reason} (error {code})")


class Library:
    """A loaded plugin library.

    Every method raises TdcError where this machine has no usable GPU and the call needs one, and
    LibraryError for every other refusal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._c = _open(path)

    def build_info(self) -> dict[str, Any]:
        """version, kernel_revision, emulated, and unless emulated cuda_runtime and architectures."""
        info: dict[str, Any] = json.loads(self._c.tdc_build_info())
        return info

    def tactics(self) -> list[int]:
        """The numbers of all tactics."""
        count = int(self._c.tdc_tactic_count())
        self._check("listing the tactics", min(count, 0))
        numbers = (c_int * count)()
        self._check("listing the tactics", min(self._c.tdc_tactics(numbers, count), 0))
        return list(numbers)

    def describe(self, number: int) -> str:
        """Such as "fused f16 8x8 w2x4 c64 s3"."""
        length = int(self._c.tdc_describe(number, None, 0))
        self._check("describing a tactic", min(length, 0))
        text = ctypes.create_string_buffer(length + 1)
        self._c.tdc_describe(number, text, length + 1)
        return text.value.decode()

    def decode(self, number: int) -> Tactic:
        """The tactic's parts."""
        found = _Tactic()
        self._check(f"tactic {number}", self._c.tdc_decode(number, ctypes.byref(found)))
        return Tactic(
            number,
            FAMILIES[found.family],
            ARITHMETICS[found.arithmetic],
            found.config,
            SPLITS[found.split],
            found.parts,
        )

    def current_device(self) -> Device:
        """The current CUDA device."""
        found = _Device()
        self._check("asking for the GPU", self._c.tdc_current_device(ctypes.byref(found)))
        return Device(found.compute_capability, found.shared_bytes, found.multiprocessors)

    def is_legal(self, number: int, params: Params, device: Device | None = None) -> bool:
        """Whether the tactic computes this layer on the device, by default the current one."""
        given = None
        if device is not None:
            given = ctypes.byref(
                _Device(device.compute_capability, device.shared_bytes, device.multiprocessors)
            )
        legal = c_int()
        self._check(
            f"tactic {number}",
            self._c.tdc_is_legal(number, ctypes.byref(params), given, ctypes.byref(legal)),
        )
        return bool(legal.value)

    def legal_tactics(self, params: Params, device: Device | None = None) -> list[int]:
        """The tactics that compute this layer on the device, by default the current one."""
        where = device or self.current_device()
        return [number for number in self.tactics() if self.is_legal(number, params, where)]

    def workspace_bytes(self, number: int, params: Params) -> int:
        """Bytes that params.workspace must point to."""
        return int(self._c.tdc_workspace_bytes(number, ctypes.byref(params)))

    def counter_count(self, number: int, params: Params) -> int:
        """Unsigned ints, zero, that params.counters must point to."""
        return int(self._c.tdc_counter_count(number, ctypes.byref(params)))

    def launch(self, number: int, params: Params, stream: int = 0) -> None:
        """Run the layer on a CUDA stream, given by its address; does not wait."""
        error = self._c.tdc_launch(number, ctypes.byref(params), stream)
        self._check(f"launching tactic {number}", error)

    def time(
        self,
        number: int,
        params: Params,
        *,
        warmup: int = 20,
        samples: int = 100,
        flush_bytes: int = 0,
    ) -> list[float]:
        """Microseconds of each of `samples` launches with a cold L2 cache, under a CUDA graph.

        `flush_bytes` are written before each launch; 0 means twice the L2 cache.
        """
        out, timing = (c_float * max(samples, 0))(), _Timing(warmup, samples, flush_bytes)
        error = self._c.tdc_time(number, ctypes.byref(params), ctypes.byref(timing), out)
        self._check(f"timing tactic {number}", error)
        return list(out)

    def time_nothing(
        self, *, warmup: int = 20, samples: int = 100, flush_bytes: int = 0
    ) -> list[float]:
        """Microseconds between the two events with nothing between them: what `time` includes."""
        out, timing = (c_float * max(samples, 0))(), _Timing(warmup, samples, flush_bytes)
        self._check("timing", self._c.tdc_time_nothing(ctypes.byref(timing), out))
        return list(out)

    def core_count(self) -> int:
        """The configurations of TDC's core kernel are 0 to this number, without it."""
        return int(self._c.tdc_core_count())

    def core_launch(self, config: int, params: CoreParams, stream: int = 0) -> None:
        """Add a convolution by TDC's core kernel to params.y; does not wait."""
        error = self._c.tdc_core_launch(config, ctypes.byref(params), stream)
        self._check(f"launching TDC's core {config}", error)

    def core_time(
        self, config: int, params: CoreParams, *, warmup: int = 20, samples: int = 100
    ) -> list[float]:
        """As `time`, of TDC's core kernel alone."""
        out, timing = (c_float * max(samples, 0))(), _Timing(warmup, samples, 0)
        error = self._c.tdc_core_time(config, ctypes.byref(params), ctypes.byref(timing), out)
        self._check(f"timing TDC's core {config}", error)
        return list(out)

    def _check(self, what: str, error: int) -> None:
        if error == 0:
            return
        reason = self._c.tdc_error_string(error).decode()
        if error in NO_GPU or error == ERROR_NEEDS_GPU:
            raise TdcError(
                f"{what}: {reason}",
                expected="an NVIDIA GPU with its driver, and a plugin built for it",
                fix="run this on such a machine; `tdc-deploy plugin build` builds the plugin there",
            )
        if error == NO_KERNEL_IMAGE:
            raise TdcError(
                f"{what}: {self.path} holds no kernels for this GPU",
                fix="build it for this GPU: tdc-deploy plugin build --architectures native",
            )
        raise LibraryError(what, error, reason)


def _open(path: Path) -> ctypes.CDLL:
    if not path.is_file():
        raise TdcError(f"no plugin library at {path}", fix="build it: tdc-deploy plugin build")
    try:
        library = ctypes.CDLL(str(path.resolve()))
        _declare(library)
        version = library.tdc_api_version()
        size = library.tdc_params_size()
    except OSError as error:
        raise TdcError(
            f"{path} cannot be loaded: {error}", expected="a plugin built on such a machine"
        ) from None
    except AttributeError as error:
        raise TdcError(f"{path} is not a plugin of tdc-deploy: {error}") from None
    if (version, size) != (API_VERSION, ctypes.sizeof(Params)):
        raise TdcError(
            f"{path} has interface {version} with {size} bytes of parameters",
            expected=f"interface {API_VERSION} with {ctypes.sizeof(Params)} bytes",
            fix="build the plugin of this version: tdc-deploy plugin build",
        )
    return library


def _declare(library: ctypes.CDLL) -> None:
    params, device, timing = POINTER(Params), POINTER(_Device), POINTER(_Timing)
    core = POINTER(CoreParams)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "tdc_api_version": (c_int, []),
        "tdc_params_size": (c_size_t, []),
        "tdc_error_string": (c_char_p, [c_int]),
        "tdc_build_info": (c_char_p, []),
        "tdc_tactic_count": (c_int, []),
        "tdc_tactics": (c_int, [POINTER(c_int), c_int]),
        "tdc_decode": (c_int, [c_int, POINTER(_Tactic)]),
        "tdc_describe": (c_int, [c_int, c_char_p, c_size_t]),
        "tdc_current_device": (c_int, [device]),
        "tdc_is_legal": (c_int, [c_int, params, device, POINTER(c_int)]),
        "tdc_workspace_bytes": (c_size_t, [c_int, params]),
        "tdc_counter_count": (c_size_t, [c_int, params]),
        "tdc_launch": (c_int, [c_int, params, c_void_p]),
        "tdc_time": (c_int, [c_int, params, timing, POINTER(c_float)]),
        "tdc_core_count": (c_int, []),
        "tdc_core_launch": (c_int, [c_int, core, c_void_p]),
        "tdc_core_time": (c_int, [c_int, core, timing, POINTER(c_float)]),
        "tdc_time_nothing": (c_int, [timing, POINTER(c_float)]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
