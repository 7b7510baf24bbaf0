"""Other libraries' arrays, seen without a copy: in host memory as NumPy, on a GPU by address."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.tensors import Shape

_DLPACK_HOST = (1, 3)  # kDLCPU, kDLCUDAHost
# TensorRT's IExecutionContext::setTensorAddress asks for it.
DEVICE_ALIGNMENT = 256
_ARRAYS = "a NumPy array, or a tensor that shares its memory (torch, DLPack)"


@dataclass(frozen=True)
class DeviceView:
    """An array in GPU memory; `stream` is the one its content is written on, if it is said.

    `owner` is the array itself, so that its memory lives as long as the view.
    """

    pointer: int
    shape: Shape
    dtype: np.dtype[Any]
    stream: int | None
    owner: Any
    read_only: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes, without gaps."""
        return prod(self.shape) * self.dtype.itemsize


View = NDArray[Any] | DeviceView


def host_view(name: str, value: Any) -> NDArray[Any]:
    """The array as a NumPy array of the same memory.

    Raises:
        TdcError: it is no array, is on a GPU, or NumPy has no such type.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "detach") and hasattr(value, "numpy"):  # torch: also what has a gradient
            if value.device.type == "cpu":
                return np.asarray(value.detach().numpy())
            raise _on_gpu(name)
        if hasattr(value, "__dlpack__"):
            if value.__dlpack_device__()[0] in _DLPACK_HOST:
                return np.from_dlpack(value)
            raise _on_gpu(name)
    except (AttributeError, TypeError, RuntimeError, BufferError) as error:
        raise TdcError(f"{name!r} cannot be seen as NumPy: {error}", expected=_ARRAYS) from None
    if hasattr(value, "__cuda_array_interface__"):
        raise _on_gpu(name)
    raise TdcError(f"{name!r} is {type(value).__name__}", expected=_ARRAYS)


def any_view(name: str, value: Any) -> View:
    """The array by its address if it is on a GPU, else as NumPy; neither is a copy.

    Raises:
        TdcError: as host_view; or an array on a GPU has gaps, a mask, or an address that is not
            aligned.
    """
    if isinstance(value, np.ndarray):
        return value
    described = value.detach() if hasattr(value, "detach") else value
    interface = getattr(described, "__cuda_array_interface__", None)
    if interface is None:
        return host_view(name, value)
    pointer, read_only = interface["data"]
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    if interface.get("mask") is not None:
        raise TdcError(f"{name!r} has a mask", expected="a plain array")
    if not _is_contiguous(shape, interface.get("strides"), dtype.itemsize):
        raise TdcError(
            f"{name!r} is not contiguous in GPU memory: strides {interface['strides']} bytes",
            expected="rows one after the other, the last axis closest",
            fix="copy it: .contiguous() in torch, cupy.ascontiguousarray",
        )
    if not pointer or pointer % DEVICE_ALIGNMENT:
        raise TdcError(
            f"{name!r} is at address {pointer or 0:#x}",
            expected=f"memory that is aligned to {DEVICE_ALIGNMENT} bytes, and is not empty",
            fix="copy it: .clone() in torch, .copy() in CuPy",
        )
    return DeviceView(pointer, shape, dtype, interface.get("stream"), value, read_only)


def out_view(name: str, value: Any, *, device: bool) -> View:
    """A view that is written to; `device` says whether arrays on a GPU will do.

    Raises:
        TdcError: as the views above; or it is read-only, not contiguous, or not aligned.
    """
    view = any_view(name, value) if device else host_view(name, value)
    if isinstance(view, DeviceView):
        if view.read_only:
            raise TdcError(f"out {name!r} is read-only", expected="an array to write to")
        return view
    flags = view.flags
    wanted = {
        "read-only": flags.writeable,
        "not contiguous": flags.c_contiguous,
        "not aligned to its type": flags.aligned,
    }
    for problem, absent in wanted.items():
        if not absent:
            raise TdcError(
                f"out {name!r} is {problem}",
                expected="a writable C-contiguous array, such as numpy.empty makes",
            )
    return view


def address(view: View) -> int:
    """Where the array begins."""
    if isinstance(view, DeviceView):
        return view.pointer
    return int(view.__array_interface__["data"][0])


def overlap(first: View, second: View) -> bool:
    """Whether the memory of two views overlaps; what has gaps counts as if it had none."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.may_share_memory(first, second)
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return False
    return (
        first.pointer < second.pointer + second.nbytes
        and second.pointer < first.pointer + first.nbytes
    )


def _on_gpu(name: str) -> TdcError:
    return TdcError(
        f"{name!r} is on a GPU",
        expected="an array in host memory, or for an engine one with __cuda_array_interface__",
        fix="copy it: .cpu() in torch, .get() in CuPy and pycuda",
    )


def _is_contiguous(shape: Shape, strides: tuple[int, ...] | None, itemsize: int) -> bool:
    if strides is None or 0 in shape:
        return True
    step = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True
