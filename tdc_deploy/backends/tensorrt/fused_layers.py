"""The fused nodes of a network, as the kernels' model sees them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_graphsurgeon as gs

from tdc_deploy.errors import TdcError
from tdc_deploy.graph import functions as op
from tdc_deploy.graph.network import Network, fused_nodes
from tdc_deploy.graph.shapes import Shape, infer_shapes
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.types import ConvLayer, Ranks


def fused_layers(
    network: Network, shapes: Mapping[str, Shape]
) -> list[tuple[gs.Node, TuckerShape]]:
    """Every fused node with its shape, ranks rounded up as the kernels want them.

    Args:
        network: with fused nodes.
        shapes: of its inputs.

    Raises:
        TdcError: a node's shape does not follow from them.
    """
    fused = fused_nodes(network.graph)
    known = infer_shapes(network, shapes) if fused else {}
    return [(node, _shape_of(node, known.get(node.inputs[op.X].name))) for node in fused]


def _shape_of(node: gs.Node, x: Shape | None) -> TuckerShape:
    if x is None:
        raise TdcError(
            f"the shape of {node.inputs[op.X].name!r}, the input of {node.name!r}, "
            "does not follow from the network's input shapes",
            expected="a network whose shapes are known",
            fix="keep this chain unfused",
        )
    ranks = Ranks(node.inputs[op.FIRST].shape[0], node.inputs[op.LAST].shape[1])
    return TuckerShape.of_layer(_layer_of(node, x), ranks, node.op == op.TUCKER_CONV_ADD)


def _layer_of(node: gs.Node, x: Shape) -> ConvLayer:
    """The convolution that a fused node computes."""
    inputs, attrs = node.inputs, node.attrs
    kh, kw, _, _ = inputs[op.CORE].shape
    top, left, bottom, right = attrs["pads"]
    return ConvLayer(
        node.name,
        inputs[op.FIRST].shape[1],
        inputs[op.LAST].shape[0],
        (kh, kw),
        tuple(attrs["strides"]),
        (top, left, bottom, right),
        tuple(attrs["dilations"]),
        1,
        "float32",
        x[0],
        (x[2], x[3]),
    )
