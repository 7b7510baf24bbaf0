"""Which shapes a network runs at: what the user gave, what the file says, what follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import Network, model_of

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

# Initializers up to this many elements may be shapes or axes, which inference needs the values of.
SMALL = 1024


def input_shapes(graph: gs.Graph, given: Mapping[str, Shape] | None = None) -> Shapes:
    """The shape of every input: `given` ones, else the file's with an unknown batch size taken as 1.

    Raises:
        TdcError: `given` names no input or contradicts the file, or another dimension is unknown.
    """
    given = dict(given or {})
    declared = {tensor.name: tensor.shape for tensor in graph.inputs}
    for name, shape in given.items():
        if name not in declared:
            raise TdcError(
                f"a shape for {name!r}, which is no input of the model",
                expected=f"inputs {', '.join(declared)}",
            )
        if min(shape, default=1) < 1 or not _fits(shape, declared[name]):
            raise TdcError(
                f"shape {_text(shape)} for input {name!r}",
                expected=f"a shape that fits the model's {_text(declared[name])}",
            )
    return {name: given.get(name) or _default(name, shape) for name, shape in declared.items()}


def infer_shapes(network: Network, inputs: Mapping[str, Shape]) -> Shapes:
    """The shape of every tensor that can be known, at these input shapes."""
    model = _without_large_weights(network)
    for value in model.graph.input:
        if value.name in inputs:
            dims = value.type.tensor_type.shape.dim
            del dims[:]
            for size in inputs[value.name]:
                dims.add().dim_value = size
    del model.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise TdcError(
            f"the model does not fit input shapes {_listing(inputs)}: {str(error).splitlines()[0]}",
            expected="shapes that the network accepts",
            fix="give --shapes name:1x3x224x224",
        ) from None
    known: Shapes = dict(inputs)
    for value in [*inferred.graph.value_info, *inferred.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.dim_value > 0 for d in dims):
            known[value.name] = tuple(d.dim_value for d in dims)
    return known


def infer_types(network: Network) -> dict[str, np.dtype[Any]]:
    """The element type of every tensor of the main graph that can be known, constants too."""
    model = _without_large_weights(network)
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = {
        value.name: value.type.tensor_type.elem_type
        for value in [*inferred.input, *inferred.value_info, *inferred.output]
    }
    known |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    return {
        name: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
        for name, kind in known.items()
        if kind
    }


def _without_large_weights(network: Network) -> onnx.ModelProto:
    """The model with its large weights as inputs of the same shape: inference copies it several times."""
    copied = network.copy()
    outputs = {id(tensor) for tensor in copied.graph.outputs}
    for tensor in list(copied.graph.tensors().values()):
        large = isinstance(tensor, gs.Constant) and math.prod(tensor.shape) > SMALL
        if large and id(tensor) not in outputs:
            stand_in = gs.Variable(tensor.name, tensor.dtype, tensor.shape)
            copied.graph.inputs.append(stand_in)
            for node in list(tensor.outputs):
                node.inputs = [stand_in if value is tensor else value for value in node.inputs]
    return model_of(copied)


def _default(name: str, shape: object) -> Shape:
    if not isinstance(shape, (list, tuple)):
        raise TdcError(
            f"input {name!r} has no shape in the model", fix=f"give --shapes {name}:1x3x224x224"
        )
    sizes = [1 if i == 0 and not isinstance(size, int) else size for i, size in enumerate(shape)]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise TdcError(
            f"input {name!r} has the open shape {_text(shape)}",
            expected="sizes for every dimension but the batch",
            fix=f"give --shapes {name}:"
            + "x".join(str(s) if isinstance(s, int) and s > 0 else "?" for s in sizes)
            + " with numbers in place of ?",
        )
    return tuple(int(size) for size in sizes)


def _fits(shape: Shape, declared: object) -> bool:
    if not isinstance(declared, (list, tuple)):
        return True
    return len(shape) == len(declared) and all(
        have == want or not isinstance(want, int) or want <= 0
        for have, want in zip(shape, declared, strict=True)
    )


def _text(shape: object) -> str:
    if not isinstance(shape, (list, tuple)):
        return "of unknown rank"
    return "x".join(str(size) for size in shape) or "(scalar)"


def _listing(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name}:{_text(shape)}" for name, shape in shapes.items())
