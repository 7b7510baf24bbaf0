"""Rewrite a float32 network to compute in float16, with Casts where it must not.

Strongly typed TensorRT networks compute in the types that the file says, so the file has to say them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.graph import functions as op
from tdc_deploy.graph.names import Names
from tdc_deploy.graph.network import Network
from tdc_deploy.graph.shapes import infer_types

LARGEST = float(np.finfo(np.float16).max)

# What computes in float16: sums of products, which every backend accumulates in float32, and what works
# on single elements without amplifying their rounding. Everything else stays float32: exponentials,
# divisions, normalisations, reductions over many elements.
_SUMS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul")
_ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Clip", "Min", "Max")
_GATES = ("Sigmoid", "HardSigmoid", "HardSwish", "Tanh")
_WINDOWS = ("MaxPool", "GlobalMaxPool", "AveragePool", "Resize")
COMPUTING = frozenset(_SUMS + _ACTIVATIONS + _GATES + _WINDOWS)

# These only move elements: they keep the type that they are given, and cost no Cast of their own.
_RESHAPING = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Dropout")
_CUTTING = ("Slice", "Split", "Concat", "Gather", "Pad", "Expand", "Tile", "Where")
MOVING = frozenset((*_RESHAPING, *_CUTTING, "DepthToSpace", "SpaceToDepth"))

# Between numbers and 8 bits; their scale has the type of the numbers.
QUANTISING = frozenset({"QuantizeLinear", "DequantizeLinear"})
QUANTISING_OPSET = 19
"""The first whose QuantizeLinear and DequantizeLinear know float16."""

LEAST_SCALE = 2.0**-17
"""The least scale that float16 holds to within 0.4%: 128 of its smallest steps."""

# These look at no element.
SHAPES = frozenset({"Shape", "Size"})

# An average of more than this many elements is a reduction over many.
FEW = 64

# Inputs whose type does not follow that of the first: Resize's roi and scales.
_OWN_TYPE = {"Resize": (1, 2)}

# Where a constant is a bound or a filler, float16's largest number means the same as a larger one.
_BOUNDS = frozenset({"Clip", "Min", "Max", "Pad", "Where"})


def to_half(network: Network, keep: Collection[str] = (), quantising: bool = False) -> list[str]:
    """Make the network compute in float16, in place; its inputs and outputs keep their types.

    The nodes named in `keep` stay float32. `quantising` rewrites QuantizeLinear and DequantizeLinear too,
    where the opset knows float16 and float16 holds their scales. That is for TensorRT: ONNX Runtime 1.32
    rounds the biases of convolutions between them by the product of two float16 scales, which may be 0.

    Returns:
        Warnings, one for each constant that was clamped.

    Raises:
        TdcError: a weight is beyond float16's range.
    """
    network.graph.toposort()
    rewriting = _Rewriting(network.graph, infer_types(network), quantising)
    for node in list(network.graph.nodes):
        if node.name not in keep:
            rewriting.rewrite(node)
    rewriting.cast_back()
    network.graph.cleanup().toposort()
    return rewriting.warnings


class _Rewriting:
    """Visits nodes in topological order.

    Every tensor keeps its object and name for its float32 version, and gets a second one for its float16
    version; so graph outputs and what subgraphs capture stay as they are.
    """

    def __init__(
        self, graph: gs.Graph, types: Mapping[str, np.dtype[Any]], quantising: bool
    ) -> None:
        self._graph = graph
        self._types = types
        self._names = Names(graph)
        self._quantising = quantising and int(graph.opset) >= QUANTISING_OPSET
        self._half: dict[str, gs.Tensor] = {}
        self._produced: dict[str, gs.Tensor] = {}
        self.warnings: list[str] = []

    def rewrite(self, node: gs.Node) -> None:
        """Change the node to float16, if it may be."""
        if node.op in SHAPES and _is_standard(node):
            if node.inputs[0].name in self._produced:
                node.inputs[0] = self._half[node.inputs[0].name]
        elif self._is_half(node):
            own = _OWN_TYPE.get(node.op, ())
            for i, tensor in enumerate(node.inputs):
                if i not in own and self._is_float(tensor):
                    node.inputs[i] = self._half_of(tensor, node)
            for i, tensor in enumerate(node.outputs):
                if self._is_float(tensor):
                    node.outputs[i] = self._half[tensor.name] = self._variable(tensor)
                    self._produced[tensor.name] = tensor

    def cast_back(self) -> None:
        """Write the float32 version of every tensor that is made in float16; cleaning up removes those
        that nothing reads.
        """
        for name, tensor in self._produced.items():
            self._cast(self._half[name], tensor, onnx.TensorProto.FLOAT)

    def _is_half(self, node: gs.Node) -> bool:
        if not all(t.is_empty() or t.name in self._types for t in [*node.inputs, *node.outputs]):
            return False
        if node.domain == op.DOMAIN:
            return node.op in op.OPERATORS
        if not _is_standard(node):
            return False
        if node.op in QUANTISING:
            return self._quantising and _holds_scale(node.inputs[1])
        if node.op in MOVING:
            return any(tensor.name in self._produced for tensor in node.inputs)
        if node.op == "AveragePool":
            return bool(math.prod(node.attrs["kernel_shape"]) <= FEW)
        return node.op in COMPUTING and any(map(self._is_float, node.outputs))

    def _is_float(self, tensor: gs.Tensor) -> bool:
        return bool(self._types.get(tensor.name) == np.float32)

    def _half_of(self, tensor: gs.Tensor, node: gs.Node) -> gs.Tensor:
        if isinstance(tensor, gs.Constant):
            return self._constant(tensor, node)
        if tensor.name not in self._half:
            self._half[tensor.name] = made = self._variable(tensor)
            self._cast(tensor, made, onnx.TensorProto.FLOAT16)
        return self._half[tensor.name]

    def _constant(self, tensor: gs.Constant, node: gs.Node) -> gs.Constant:
        # Clamped or refused for this node: checked even where another has the same constant.
        values = self._in_range(tensor, node)
        if tensor.name not in self._half:
            name = self._names.fresh(f"{tensor.name}/fp16")
            self._half[tensor.name] = gs.Constant(name, values.astype(np.float16))
        return self._half[tensor.name]

    def _in_range(self, tensor: gs.Constant, node: gs.Node) -> NDArray[Any]:
        values: NDArray[Any] = np.asarray(tensor.values)
        large = np.isfinite(values) & (np.abs(values) > LARGEST)
        if not large.any():
            return values
        largest = np.abs(values[large]).max()
        if node.op not in _BOUNDS:
            raise TdcError(
                f"the weight {tensor.name!r} of {node.op} {node.name!r} holds {largest:.4g}",
                expected=f"weights of at most {LARGEST:g}, the largest number in fp16",
                fix="build with --precision tf32 or fp32",
            )
        self.warnings.append(f"{tensor.name!r} of {node.op} {node.name!r} is clamped to fp16")
        return np.where(large, np.copysign(LARGEST, values), values)

    def _variable(self, tensor: gs.Tensor) -> gs.Variable:
        return gs.Variable(self._names.fresh(f"{tensor.name}/fp16"), np.float16, tensor.shape)

    def _cast(self, source: gs.Tensor, target: gs.Tensor, to: int) -> None:
        name = self._names.fresh(f"{target.name}/cast")
        node = gs.Node("Cast", name, {"to": to}, inputs=[source], outputs=[target])
        self._graph.nodes.append(node)


def holds_beyond_half(node: gs.Node) -> bool:
    """True if `to_half` would refuse the node for one of its constants."""
    constants = [t.values for t in node.inputs if isinstance(t, gs.Constant)]
    floats = [values for values in constants if values.dtype == np.float32]
    large = any((np.isfinite(v) & (np.abs(v) > LARGEST)).any() for v in floats)
    return large and node.op not in _BOUNDS


def _holds_scale(scale: gs.Tensor) -> bool:
    """Whether float16 holds the scales of 8 bits, so that they mean the same."""
    if not isinstance(scale, gs.Constant) or scale.dtype != np.float32:
        return False
    values = np.asarray(scale.values)
    return bool((values >= LEAST_SCALE).all() and (values <= LARGEST).all())


def _is_standard(node: gs.Node) -> bool:
    return not node.domain
