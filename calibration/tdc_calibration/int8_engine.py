"""The Q/DQ form that TensorRT builds INT8 kernels from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from tdc_calibration.calibrators import Range
from tdc_calibration.int8 import ANY_RANGE, any_ranges, check_quantisable
from tdc_deploy.graph.half import LEAST_SCALE, QUANTISING_OPSET
from tdc_deploy.graph.names import Names, name_nodes
from tdc_deploy.graph.network import Network, model_of, network_of
from tdc_deploy.graph.opset import with_opset

LEVELS = 127

REVISION = 1
"""Raised whenever the same layer or network and ranges make another Q/DQ form: what was measured on it is
then void."""

# The first opset whose scales may be float16.
OPSET = QUANTISING_OPSET


def quantise_for_tensorrt(
    network: Network, ranges: Mapping[str, Range], keep: Collection[str] = ()
) -> Network:
    """A copy with explicit Q/DQ: symmetric int8, weights with a scale for each output channel; all scales
    are float16 numbers, so that the form means the same once it is rewritten to fp16.

    In front of each convolution, and of the shortcut of each residual addition, whose other input comes
    from a convolution: TensorRT then makes one kernel of both and of an activation behind. Outputs and
    biases stay as they are, and so do the nodes `keep`. Weights are stored in float32 with their own
    Q/DQ, as every TensorRT from 8 on takes them.

    Raises:
        TdcError: the model's opset is too old.
    """
    check_quantisable(network)
    copied = network.copy()
    name_nodes(copied.graph)
    writer = _Writer(copied.graph, ranges)
    convs = [node for node in copied.graph.nodes if _is_conv(node) and node.name not in keep]
    outputs = {node.outputs[0].name for node in convs}
    for node in list(copied.graph.nodes):
        if node.op == "Add" and not node.domain and node.name not in keep:
            place = _shortcut(node, outputs)
            if place is not None:
                node.inputs[place] = writer.activation(node.inputs[place])
    for node in convs:
        node.inputs[0] = writer.activation(node.inputs[0])
        node.inputs[1] = writer.weight(node.inputs[1])
    copied.graph.cleanup().toposort()
    return copied


class _Writer:
    """Adds QuantizeLinear and DequantizeLinear: one pair for each tensor, whoever reads it."""

    def __init__(self, graph: gs.Graph, ranges: Mapping[str, Range]) -> None:
        self._graph = graph
        self._ranges = ranges
        self._names = Names(graph)
        self._made: dict[str, gs.Variable] = {}

    def activation(self, tensor: gs.Tensor) -> gs.Variable:
        """The tensor, rounded to int8 over its range."""
        low, high = self._ranges[tensor.name]
        return self._pair(tensor, np.float32(_scale(max(-low, high))), {})

    def weight(self, tensor: gs.Constant) -> gs.Variable:
        """A kernel [M, …], each output channel rounded to int8 over its own range."""
        values = np.asarray(tensor.values)
        largest = np.abs(values).reshape(len(values), -1).max(1)
        scales = np.array([_scale(float(value)) for value in largest], np.float32)
        return self._pair(tensor, scales, {"axis": 0})

    def _pair(self, tensor: gs.Tensor, scale: Any, attributes: dict[str, Any]) -> gs.Variable:
        if tensor.name not in self._made:
            name = tensor.name
            parameters = [
                self._constant(f"{name}/scale", np.asarray(scale)),
                self._constant(f"{name}/zero", np.zeros(np.shape(scale), np.int8)),
            ]
            inside = gs.Variable(self._names.fresh(f"{name}/int8"), np.int8, tensor.shape)
            result = gs.Variable(self._names.fresh(f"{name}/rounded"), np.float32, tensor.shape)
            for op, source, target in (
                ("QuantizeLinear", tensor, inside),
                ("DequantizeLinear", inside, result),
            ):
                node = gs.Node(op, f"{target.name}/{op}", dict(attributes))
                node.inputs, node.outputs = [source, *parameters], [target]
                self._graph.nodes.append(node)
            self._made[tensor.name] = result
        return self._made[tensor.name]

    def _constant(self, name: str, values: NDArray[Any]) -> gs.Constant:
        return gs.Constant(self._names.fresh(name), values)


def _scale(largest: float) -> float:
    """The step of int8 over ±largest, rounded up to a float16 number; of zeros alone, any.

    Below LEAST_SCALE it is that, which float16 holds: a range so small loses levels.
    """
    if not largest > 0:
        return 1.0
    step = max(largest / LEVELS, LEAST_SCALE)
    held = np.float16(step)
    return float(held if float(held) >= step else np.nextafter(held, np.float16(np.inf)))


def layer_in_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of one layer in Q/DQ form, from 8 bits to 8 bits as between layers in INT8."""
    network = with_opset(network_of(model), OPSET)
    quantised = quantise_for_tensorrt(network, any_ranges(network.graph))
    _quantise_output(quantised.graph)
    _begin_in_int8(quantised.graph)
    return model_of(quantised)


def _quantise_output(graph: gs.Graph) -> None:
    (output,) = graph.outputs
    scale = gs.Constant("y/scale", np.asarray(_scale(ANY_RANGE[1]), np.float32))
    made = gs.Variable("y/int8", np.int8, output.shape)
    node = gs.Node("QuantizeLinear", "y/QuantizeLinear")
    node.inputs = [output, scale, gs.Constant("y/zero", np.asarray(0, np.int8))]
    node.outputs = [made]
    graph.nodes.append(node)
    graph.outputs = [made]


def _begin_in_int8(graph: gs.Graph) -> None:
    """Leave out the first QuantizeLinear, so that the input is what it made."""
    (value,) = graph.inputs
    (first,) = value.outputs
    inside = first.outputs[0]
    inside.shape, inside.dtype = value.shape, np.int8
    first.inputs.clear()
    first.outputs.clear()
    graph.inputs = [inside]
    graph.cleanup().toposort()


def _is_conv(node: gs.Node) -> bool:
    if node.op != "Conv" or node.domain:
        return False
    weight = node.inputs[1]
    return isinstance(weight, gs.Constant) and weight.dtype == np.float32


def _shortcut(add: gs.Node, convolved: Collection[str]) -> int | None:
    """Which input of an addition is the shortcut beside a convolution's output; the second if both are."""
    from_conv = [tensor.name in convolved for tensor in add.inputs]
    if any(isinstance(tensor, gs.Constant) for tensor in add.inputs) or not any(from_conv):
        return None
    return 1 if from_conv[0] else 0
