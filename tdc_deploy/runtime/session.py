"""Inference with NumPy arrays on a built artifact, or on any ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.backends.onnxruntime import make_session
from tdc_deploy.errors import TdcError

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class TensorInfo:
    """An input or output; sizes that may vary are None or a name."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]


class Session:
    """A loaded model. Call it with one array per input, in order or by name.

    It returns the output array, or a dict of them by name where the model has several. Calls from
    several threads are safe. Use as a context manager, or `close` it.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        if threads < 0:
            raise TdcError(f"threads is {threads}", expected="0 (ONNX Runtime's choice) or more")
        if not path.is_file():
            raise TdcError(f"no artifact at {path}", fix="check the path")
        self._session = make_session(path, threads)
        self.inputs = [_info(node) for node in self._session.get_inputs()]
        self.outputs = [_info(node) for node in self._session.get_outputs()]
        self._by_name = {info.name: info for info in self.inputs}
        self._single = len(self.outputs) == 1
        self._shared = _shared_sizes(self.inputs)

    def __call__(
        self, *arrays: NDArray[Any], **named: NDArray[Any]
    ) -> NDArray[Any] | dict[str, NDArray[Any]]:
        """Run the model.

        Raises:
            TdcError: an input is missing, unknown, or of another dtype or shape; or the session is
                closed.
        """
        session = self._session
        if session is None:
            raise TdcError("this session is closed", fix="load the artifact again")
        if len(arrays) > len(self.inputs):
            raise TdcError(
                f"{len(arrays)} inputs", expected=f"{len(self.inputs)}: {', '.join(self._by_name)}"
            )
        feeds = {info.name: array for info, array in zip(self.inputs, arrays, strict=False)}
        self._add_named(feeds, named)
        for name, array in feeds.items():
            _check(self._by_name[name], array)
        for places in self._shared:
            _check_equal(places, feeds)
        values: list[NDArray[Any]] = session.run(None, feeds)
        if self._single:
            return values[0]
        return {info.name: value for info, value in zip(self.outputs, values, strict=True)}

    def _add_named(self, feeds: dict[str, NDArray[Any]], named: Mapping[str, NDArray[Any]]) -> None:
        for name, array in named.items():
            if name not in self._by_name or name in feeds:
                what = "is given twice" if name in feeds else "is no input"
                raise TdcError(f"{name!r} {what}", expected=", ".join(self._by_name))
            feeds[name] = array
        if len(feeds) < len(self.inputs):
            missing = [name for name in self._by_name if name not in feeds]
            raise TdcError(f"no input {', '.join(missing)}", expected=", ".join(self._by_name))

    def close(self) -> None:
        """Free the model; calls after it raise TdcError."""
        self._session = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def load(path: str | PathLike[str], threads: int = 0) -> Session:
    """Load an artifact for inference.

    Args:
        path: an `.onnx` file.
        threads: threads within an operator; 0 leaves it to ONNX Runtime.

    Raises:
        TdcError: no such file, or ONNX Runtime refuses it.
    """
    return Session(Path(path), threads)


def _info(node: Any) -> TensorInfo:
    if node.type not in _DTYPES:
        raise TdcError(f"{node.name!r} is {node.type}", expected="a tensor of numbers")
    return TensorInfo(node.name, np.dtype(_DTYPES[node.type]), tuple(node.shape))


def _check(info: TensorInfo, array: NDArray[Any]) -> None:
    if not isinstance(array, np.ndarray):
        raise TdcError(f"{info.name!r} is {type(array).__name__}", expected="a NumPy array")
    if array.dtype != info.dtype:
        raise TdcError(
            f"{info.name!r} is {array.dtype.name}",
            expected=info.dtype.name,
            fix=f"convert it with .astype(numpy.{info.dtype.name})",
        )
    if array.shape != info.shape and not _fits(array.shape, info.shape):
        raise TdcError(f"{info.name!r} has shape {array.shape}", expected=f"{info.shape}")


Places = list[tuple[str, int]]


def _shared_sizes(inputs: list[TensorInfo]) -> list[Places]:
    """Where each open size that several inputs share stands: [(input, axis), …]."""
    places: dict[str, Places] = {}
    for info in inputs:
        for axis, size in enumerate(info.shape):
            if isinstance(size, str):
                places.setdefault(size, []).append((info.name, axis))
    return [found for found in places.values() if len(found) > 1]


def _check_equal(places: Places, feeds: Mapping[str, NDArray[Any]]) -> None:
    (name, axis), *others = places
    size = feeds[name].shape[axis]
    for other, other_axis in others:
        if feeds[other].shape[other_axis] != size:
            raise TdcError(
                f"{other!r} has shape {feeds[other].shape}, {name!r} {feeds[name].shape}",
                expected=f"size {size} at axis {other_axis} of {other!r}: the model has one for both",
            )


def _fits(shape: tuple[int, ...], declared: tuple[int | str | None, ...]) -> bool:
    return len(shape) == len(declared) and all(
        not isinstance(want, int) or have == want
        for have, want in zip(shape, declared, strict=True)
    )
