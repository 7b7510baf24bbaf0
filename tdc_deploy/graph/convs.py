"""Find the convolutions of a graph, at the shapes they run at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from tdc_deploy.errors import TdcError
from tdc_deploy.graph.shapes import Shapes
from tdc_deploy.types import ConvLayer

PLANNED_TYPES = (np.float32, np.float16)

# Convolutions of other operators, which are listed so that it can be said that they stay.
_STAY = {
    "ConvTranspose": "it is transposed",
    "DeformConv": "it is deformable",
    "QLinearConv": "it is quantised",
    "ConvInteger": "it is quantised",
}


@dataclass(frozen=True)
class FoundConv:
    """A convolution node; `reason` says why where it must stay as it is, `layer` is None where its shape is
    not known or it is not 2-D.
    """

    node: gs.Node
    layer: ConvLayer | None
    reason: str = ""

    @property
    def name(self) -> str:
        """The node's name, unique in its graph once `canonicalise` has run."""
        return str(self.node.name)


def canonicalise(graph: gs.Graph) -> None:
    """Give every convolution a unique name and explicit attributes, and make Constant nodes initializers.

    What reads the graph afterwards meets one spelling of each convolution.
    """
    _lift_constants(graph)
    convs = [node for node in graph.nodes if node.op == "Conv" or node.op in _STAY]
    chosen = {id(node) for node in convs}
    taken = {node.name for node in graph.nodes if id(node) not in chosen}
    for node in convs:
        base = node.name or f"{node.op}_{node.outputs[0].name}"
        node.name, serial = base, 1
        while node.name in taken:
            node.name, serial = f"{base}_{serial}", serial + 1
        taken.add(node.name)
        if node.op == "Conv":
            _explicit_attributes(node)


def find_convs(graph: gs.Graph, shapes: Shapes) -> list[FoundConv]:
    """Every convolution in graph order but those inside If and Loop; call `canonicalise` first."""
    found = []
    for node in graph.nodes:
        if node.op in _STAY:
            found.append(FoundConv(node, None, _STAY[node.op]))
        elif node.op == "Conv":
            layer = _layer(node, shapes) if _has_shape(node, shapes) else None
            found.append(FoundConv(node, layer, _why_dense(node, shapes)))
    return found


def kernel(node: gs.Node) -> np.ndarray[Any, Any]:
    """The Conv's weight [M, C/groups, kh, kw]."""
    return np.asarray(node.inputs[1].values)


def bias(node: gs.Node) -> np.ndarray[Any, Any] | None:
    """The Conv's bias [M], or None."""
    return np.asarray(node.inputs[2].values) if has_bias(node) else None


def has_bias(node: gs.Node) -> bool:
    """True if the Conv's optional third input is there."""
    return len(node.inputs) > 2 and not node.inputs[2].is_empty()


def drop_absent_biases(graph: gs.Graph) -> None:
    """Leave out biases that are given as the empty name: onnxscript's optimiser trips over them."""
    for node in graph.nodes:
        if node.op == "Conv" and len(node.inputs) > 2 and node.inputs[2].is_empty():
            node.inputs = node.inputs[:2]


def _lift_constants(graph: gs.Graph) -> None:
    for node in list(graph.nodes):
        if node.op == "Constant" and isinstance(node.attrs.get("value"), gs.Constant):
            output = node.outputs[0]
            if output in graph.outputs:
                continue
            constant = gs.Constant(output.name, node.attrs["value"].values)
            for consumer in list(output.outputs):
                consumer.inputs = [constant if i is output else i for i in consumer.inputs]
            node.outputs.clear()
            graph.nodes.remove(node)


def _explicit_attributes(node: gs.Node) -> None:
    weight = node.inputs[1]
    rank = len(weight.shape) - 2 if weight.shape is not None else 2
    attrs = node.attrs
    if attrs.get("auto_pad") == "NOTSET":
        del attrs["auto_pad"]
    attrs.setdefault("strides", [1] * rank)
    attrs.setdefault("dilations", [1] * rank)
    attrs.setdefault("group", 1)
    if isinstance(weight, gs.Constant):
        attrs.setdefault("kernel_shape", list(weight.shape[2:]))
    mode = attrs.get("auto_pad")
    if mode is None:
        attrs.setdefault("pads", [0] * 2 * rank)
    elif mode == "VALID" or ("kernel_shape" in attrs and set(attrs["strides"]) == {1}):
        # The same at every input size. With a stride, the padding depends on it.
        attrs["pads"] = _auto_pads(attrs, [1] * rank)
        del attrs["auto_pad"]


def _auto_pads(attrs: Mapping[str, Any], sizes: Sequence[int]) -> list[int]:
    """What `auto_pad` means for an input of these sizes, as ONNX's pads: all befores, then all afters."""
    if attrs["auto_pad"] == "VALID":
        return [0] * 2 * len(sizes)
    totals = []
    geometry = zip(sizes, attrs["kernel_shape"], attrs["strides"], attrs["dilations"], strict=True)
    for size, kernel_size, stride, dilation in geometry:
        span = dilation * (kernel_size - 1) + 1
        totals.append(max((-(-size // stride) - 1) * stride + span - size, 0))
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return less + more if attrs["auto_pad"] == "SAME_UPPER" else more + less


def _why_dense(node: gs.Node, shapes: Shapes) -> str:
    weight = node.inputs[1]
    if not isinstance(weight, gs.Constant):
        return "its weight is computed, not stored"
    if len(weight.shape) != 4:
        return f"it is {len(weight.shape) - 2}-D"
    if weight.dtype not in PLANNED_TYPES:
        return f"its weight is {np.dtype(weight.dtype).name}"
    if has_bias(node) and not isinstance(node.inputs[2], gs.Constant):
        return "its bias is computed, not stored"
    if node.attrs["group"] != 1:
        return "it is depthwise" if weight.shape[1] == 1 else "it is grouped"
    if min(node.attrs.get("pads", [0])) < 0:
        return "its padding is negative"
    if node.inputs[0].name not in shapes:
        return "its input shape is not known"
    return ""


def _has_shape(node: gs.Node, shapes: Shapes) -> bool:
    weight = node.inputs[1]
    stored = isinstance(weight, gs.Constant) and len(weight.shape) == 4
    padded = min(node.attrs.get("pads", [0])) >= 0
    return stored and padded and node.inputs[0].name in shapes


def _layer(node: gs.Node, shapes: Shapes) -> ConvLayer:
    groups = node.attrs["group"]
    m, c, kh, kw = node.inputs[1].shape
    batch, channels, height, width = shapes[node.inputs[0].name]
    if min(m, c, kh, kw) < 1:
        raise TdcError(
            f"the weight of convolution {node.name!r} has shape {(m, c, kh, kw)}",
            expected="sizes of at least 1",
            fix="export the model again",
        )
    if channels != c * groups:
        raise TdcError(
            f"convolution {node.name!r} reads {channels} channels, but its weight is for {c * groups}",
            expected="as many",
            fix="export the model again",
        )
    if has_bias(node) and tuple(node.inputs[2].shape or (m,)) != (m,):
        raise TdcError(
            f"the bias of convolution {node.name!r} has shape {tuple(node.inputs[2].shape)}",
            expected=f"({m},), one number for each output channel",
            fix="export the model again",
        )
    attrs = node.attrs
    pads = attrs["pads"] if "auto_pad" not in attrs else _auto_pads(attrs, (height, width))
    top, left, bottom, right = pads
    return ConvLayer(
        name=node.name,
        c_in=c * groups,
        c_out=m,
        kernel=(kh, kw),
        strides=(attrs["strides"][0], attrs["strides"][1]),
        pads=(top, left, bottom, right),
        dilations=(attrs["dilations"][0], attrs["dilations"][1]),
        groups=groups,
        dtype=np.dtype(node.inputs[1].dtype).name,
        batch=batch,
        in_hw=(height, width),
    )
