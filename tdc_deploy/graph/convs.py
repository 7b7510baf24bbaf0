"""Find the convolutions of a graph, at the shapes they run at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from tdc_deploy.graph.shapes import Shapes
from tdc_deploy.types import ConvLayer


@dataclass(frozen=True)
class FoundConv:
    """A Conv node; `reason` says why where it must stay as it is, `layer` is None where its shape is
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
    """Give every Conv a unique name and explicit attributes, and make Constant nodes initializers.

    What reads the graph afterwards meets one spelling of each convolution.
    """
    _lift_constants(graph)
    taken = {node.name for node in graph.nodes if node.op != "Conv"}
    for node in graph.nodes:
        if node.op != "Conv":
            continue
        base = node.name or f"Conv_{node.outputs[0].name}"
        node.name, serial = base, 1
        while node.name in taken:
            node.name, serial = f"{base}_{serial}", serial + 1
        taken.add(node.name)
        _explicit_attributes(node)


def find_convs(graph: gs.Graph, shapes: Shapes) -> list[FoundConv]:
    """Every Conv in graph order; call `canonicalise` first. Convs inside If and Loop are not looked at."""
    found = []
    for node in graph.nodes:
        if node.op != "Conv":
            continue
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
    if "auto_pad" not in attrs:
        attrs.setdefault("pads", [0] * 2 * rank)
    if isinstance(weight, gs.Constant):
        attrs.setdefault("kernel_shape", list(weight.shape[2:]))


def _why_dense(node: gs.Node, shapes: Shapes) -> str:
    weight = node.inputs[1]
    if not isinstance(weight, gs.Constant):
        return "its weight is computed, not stored"
    if len(weight.shape) != 4:
        return f"it is {len(weight.shape) - 2}-D"
    if weight.dtype != np.float32:
        return f"its weight is {np.dtype(weight.dtype).name}"
    if has_bias(node) and not isinstance(node.inputs[2], gs.Constant):
        return "its bias is computed, not stored"
    if node.attrs["group"] != 1:
        return "it is depthwise" if weight.shape[1] == 1 else "it is grouped"
    if "auto_pad" in node.attrs:
        return f"its padding is auto_pad {node.attrs['auto_pad']}"
    if node.inputs[0].name not in shapes:
        return "its input shape is not known"
    return ""


def _has_shape(node: gs.Node, shapes: Shapes) -> bool:
    weight = node.inputs[1]
    stored = isinstance(weight, gs.Constant) and len(weight.shape) == 4
    return stored and "pads" in node.attrs and node.inputs[0].name in shapes


def _layer(node: gs.Node, shapes: Shapes) -> ConvLayer:
    groups = node.attrs["group"]
    m, c, kh, kw = node.inputs[1].shape
    batch, _, height, width = shapes[node.inputs[0].name]
    attrs = node.attrs
    top, left, bottom, right = attrs["pads"]
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
