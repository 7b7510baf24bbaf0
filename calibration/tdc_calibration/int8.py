"""Rewrite a float32 network in explicit Q/DQ form, as ONNX Runtime computes in 8 bits."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from tdc_calibration.calibrators import Range
from tdc_deploy import cpu
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.large import is_large
from tdc_deploy.graph.names import name_nodes
from tdc_deploy.graph.network import Network, model_of

REVISION = 1
"""Raised whenever the same network and ranges make another file: what was measured on it is then void."""

# Of activations whose values make no difference to the time.
ANY_RANGE = (-4.0, 4.0)

# Weights per channel need DequantizeLinear's axis.
LEAST_OPSET = 13

# What holds weights decides whether it computes in 8 bits; what stands between two such nodes does so too.
WEIGHTED = ("Conv", "Gemm", "MatMul")
_ARITHMETIC = ("Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid")
_WINDOWS = ("MaxPool", "AveragePool", "GlobalAveragePool", "Resize")
_MOVING = (
    "Concat",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Split",
    "Pad",
)
BETWEEN = (*_ARITHMETIC, *_WINDOWS, *_MOVING)

# Instruction sets whose products of 8-bit numbers do not saturate in 16 bits.
_EXACT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8"}
_X86 = ("x86_64", "amd64", "i686", "i386")


@dataclass(frozen=True)
class Scheme:
    """The types: signed weights per output channel, activations per tensor with a zero point.

    `weight_bits` is 7 where 8-bit products would saturate.
    """

    activations: Literal["uint8", "int8"] = "uint8"
    weight_bits: Literal[7, 8] = 8

    def __str__(self) -> str:
        return f"{self.activations} activations, int{self.weight_bits} weights"


def schemes_of_machine() -> list[Scheme]:
    """The schemes to choose from here: on x86 without VNNI or AMX, with weights of 7 bits.

    There ONNX Runtime adds pairs of products in 16 bits, which two products of 8 bits exceed.
    """
    bits: Literal[7, 8] = 7 if _products_saturate() else 8
    return [Scheme("uint8", bits), Scheme("int8", bits)]


def _products_saturate() -> bool:
    if platform.machine().lower() not in _X86:
        return False
    return not _EXACT_PRODUCTS & cpu.flags()


def weighted_nodes(network: Network) -> list[str]:
    """The names of the nodes with stored weights that can compute in 8 bits, in graph order.

    Nodes without a name are given one, in place.
    """
    name_nodes(network.graph)
    return [node.name for node in network.graph.nodes if _is_weighted(node)]


def quantise(
    network: Network,
    ranges: Mapping[str, Range],
    scheme: Scheme,
    keep: Collection[str] = (),
) -> onnx.ModelProto:
    """The model with QuantizeLinear and DequantizeLinear around what shall compute in 8 bits.

    Chains must be plain convolutions: a fused one stays float32.

    Args:
        network: float32; given names where nodes have none.
        ranges: of each float32 activation.
        scheme: the types.
        keep: weighted nodes that stay float32, as does what only they feed.

    Raises:
        TdcError: the model's opset is too old, or the model is above protobuf's 2 GiB.
    """
    check_quantisable(network)
    name_nodes(network.graph)
    chosen = _chosen(network, keep)
    excluded = [node.name for node in network.graph.nodes if node.name not in chosen]
    model = model_of(network)
    if is_large(model):
        raise TdcError("a model above 2 GiB in int8", fix="build it with --precision fp32")
    metadata = list(model.metadata_props)
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    quantiser = QDQQuantizer(
        onnx.shape_inference.infer_shapes(model),
        per_channel=True,
        reduce_range=scheme.weight_bits == 7,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if scheme.activations == "uint8" else QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=excluded,
        op_types_to_quantize=[*WEIGHTED, *BETWEEN],
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    quantiser.quantize_model()
    quantiser.model.topological_sort()
    made: onnx.ModelProto = quantiser.model.model
    _shield(made.graph)
    del made.graph.value_info[:]
    del made.metadata_props[:]  # the library's own among them
    made.metadata_props.extend(metadata)
    return made


def with_exact_weights(quantised: onnx.ModelProto, network: Network) -> onnx.ModelProto:
    """A copy of what `quantise` made of the network in which only activations are rounded."""
    exact = {n.name: n for n in network.graph.nodes if _is_weighted(n)}
    copied = onnx.ModelProto()
    copied.CopyFrom(quantised)
    added: set[str] = set()
    for node in copied.graph.node:
        for place, tensor in enumerate(exact[node.name].inputs if node.name in exact else ()):
            if isinstance(tensor, gs.Constant) and place > 0:
                # The library gives what is dequantised the name of what was quantised.
                node.input[place] = name = f"{tensor.name}/exact"
                if name not in added:
                    values = onnx.numpy_helper.from_array(np.asarray(tensor.values), name)
                    copied.graph.initializer.append(values)
                    added.add(name)
    _shield(copied.graph)
    return copied


def check_quantisable(network: Network) -> None:
    """Raise TdcError if the model's opset cannot say what INT8 needs."""
    if network.opset < LEAST_OPSET:
        raise TdcError(
            f"a model of opset {network.opset} in int8",
            expected=f"opset {LEAST_OPSET} or newer, which has weights quantised by channel",
            fix="export the model again, or convert it with onnx.version_converter",
        )


def computed_in(model: onnx.ModelProto) -> dict[str, str]:
    """Weighted node → int8 or fp32, as the file says: by whether its input and weight are dequantised."""
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    return {
        node.name: "int8" if _reads_dequantised(node, made_by) else "fp32"
        for node in model.graph.node
        if node.op_type in WEIGHTED
    }


def _shield(graph: onnx.GraphProto) -> None:
    """Put a LeakyRelu that does nothing behind float32 nodes with weights that read what was dequantised.

    Between DequantizeLinear and QuantizeLinear, with nothing but Relu or Clip there, ONNX Runtime would
    quantise the weights by itself, all channels with one scale. Of the LeakyRelu it makes a part of the
    convolution.
    """
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    shields = {}
    for node in graph.node:
        reads = [made_by.get(name) == "DequantizeLinear" for name in node.input[:2]]
        if node.op_type in WEIGHTED and reads == [True, False]:
            output = node.output[0]
            node.output[0] = exact = f"{output}/exact"
            shields[node.name] = onnx.helper.make_node(
                "LeakyRelu", [exact], [output], name=f"{node.name}/exact", alpha=1.0
            )
    nodes = [n for node in graph.node for n in (node, shields.get(node.name)) if n is not None]
    del graph.node[:]
    graph.node.extend(nodes)


def _reads_dequantised(node: onnx.NodeProto, made_by: Mapping[str, str]) -> bool:
    return all(made_by.get(name) == "DequantizeLinear" for name in node.input[:2])


def _is_weighted(node: gs.Node) -> bool:
    if node.domain or node.op not in WEIGHTED:
        return False
    weight = node.inputs[1]
    return isinstance(weight, gs.Constant) and weight.dtype == np.float32


def _chosen(network: Network, keep: Collection[str]) -> set[str]:
    """The nodes that compute in 8 bits: the weighted ones but `keep`, and what such a node feeds."""
    chosen: set[str] = set()
    from_int8: set[str] = set()
    network.graph.toposort()
    for node in network.graph.nodes:
        if _is_weighted(node):
            taken = node.name not in keep
        else:
            fed = any(tensor.name in from_int8 for tensor in node.inputs)
            taken = not node.domain and node.op in BETWEEN and fed
        if taken:
            chosen.add(node.name)
            from_int8.update(tensor.name for tensor in node.outputs)
    return chosen


def any_ranges(graph: gs.Graph) -> dict[str, Range]:
    """A range for each input and each node's output, to time a layer by."""
    tensors = [*graph.inputs, *(tensor for node in graph.nodes for tensor in node.outputs)]
    return {tensor.name: ANY_RANGE for tensor in tensors}
