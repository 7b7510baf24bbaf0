"""Models of more than protobuf writes in one piece: their weights are kept outside the message."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError

# Protobuf's limit is 2 GiB; what is no weight (nodes, functions, metadata) has the rest.
MAX_INLINE_BYTES = 2**31 - 2**26

# Smaller tensors may be shapes, which are needed to read the graph.
LEAST_BYTES = 1024

# Each tensor in the file begins on a page, so that it can be mapped into memory.
ALIGNMENT = 4096

# NumPy's own types; tensors of others stay in the message.
_TYPES: dict[int, np.dtype[Any]] = {
    onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)): np.dtype(name)
    for name in ("float16", "float32", "float64", "int8", "uint8", "int32", "int64")
}


@dataclass(frozen=True, eq=False)
class Outside:
    """A tensor that is kept outside the message, at `offset` of `size` bytes."""

    tensor: onnx.TensorProto
    offset: int
    size: int

    @property
    def name(self) -> str:
        """The initializer's name."""
        return str(self.tensor.name)

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + self.size + -self.size % ALIGNMENT

    def array(self) -> NDArray[Any]:
        """The values."""
        return np.ascontiguousarray(onnx.numpy_helper.to_array(self.tensor))


def is_large(model: onnx.ModelProto) -> bool:
    """True if the model's weights do not fit into one message."""
    return sum(_size(tensor) for tensor in model.graph.initializer) > MAX_INLINE_BYTES


def outside(model: onnx.ModelProto) -> list[Outside]:
    """The weights that are worth keeping outside, and where each stands in one file."""
    found: list[Outside] = []
    for tensor in model.graph.initializer:
        if (size := _size(tensor)) >= LEAST_BYTES:
            found.append(Outside(tensor, found[-1].end if found else 0, size))
    return found


def shell(model: onnx.ModelProto, weights: list[Outside], location: str) -> onnx.ModelProto:
    """A copy of the model that says that `weights` are in the file `location`."""
    made = onnx.ModelProto()
    _copy_fields(model, made, "graph")
    _copy_fields(model.graph, made.graph, "initializer")
    moved = {entry.name: entry for entry in weights}
    for tensor in model.graph.initializer:
        entry = moved.get(tensor.name)
        if entry is None:
            made.graph.initializer.add().CopyFrom(tensor)
            continue
        added = made.graph.initializer.add(
            name=tensor.name,
            data_type=tensor.data_type,
            dims=tensor.dims,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        where = {"location": location, "offset": str(entry.offset), "length": str(entry.size)}
        for key, value in where.items():
            added.external_data.add(key=key, value=value)
    return made


def check_large(model: onnx.ModelProto) -> None:
    """Onnx's checker on a model of any size, whose large weights it takes for inputs."""
    weights = outside(model)
    checked = shell(model, weights, "weights")
    moved = {entry.name for entry in weights}
    kept = [tensor for tensor in checked.graph.initializer if tensor.name not in moved]
    inputs = {value.name for value in checked.graph.input}
    for tensor in checked.graph.initializer:
        if tensor.name in moved - inputs:
            checked.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    del checked.graph.initializer[:]
    checked.graph.initializer.extend(kept)
    onnx.checker.check_model(checked)


def file_content(weights: list[Outside]) -> Iterator[bytes]:
    """The file of these weights, piece by piece."""
    for entry in weights:
        yield entry.array().tobytes()
        yield bytes(-entry.size % ALIGNMENT)


def serialised(model: onnx.ModelProto) -> bytes:
    """The model in one piece.

    Raises:
        TdcError: it is too large for that.
    """
    if is_large(model):
        raise TdcError(
            "the model's weights are more than 2 GiB", expected="less, for a TensorRT engine"
        )
    return bytes(model.SerializeToString())


def content_sha256(weights: list[Outside]) -> str:
    """Hex digest of `file_content`."""
    digest = hashlib.sha256()
    for piece in file_content(weights):
        digest.update(piece)
    return digest.hexdigest()


def _size(tensor: onnx.TensorProto) -> int:
    dtype = _TYPES.get(tensor.data_type)
    return 0 if dtype is None else math.prod(tensor.dims) * dtype.itemsize


def _copy_fields(source: Any, target: Any, skipped: str) -> None:
    for field, value in source.ListFields():
        if field.name == skipped:
            continue
        if isinstance(value, (str, bytes, int, float)):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)
