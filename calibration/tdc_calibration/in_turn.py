"""Let ONNX Runtime hand out tensors one by one, as it computes them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_graphsurgeon as gs

from tdc_deploy.graph.network import Network

NAME = "tdc_calibration.in_turn"


def hand_out_in_turn(network: Network, names: Iterable[str]) -> None:
    """Add nodes at the network's end that take a row of each of these outputs, the first tensor's last.

    ONNX Runtime computes convolutions in a layout of its own and changes an output's back in a node that it
    adds. It goes through a graph from the last of the nodes that nobody reads to the first, each after what
    it needs; of the nodes that it adds itself, the order is arbitrary, and most ended up behind all
    convolutions: every tensor was kept in both layouts, and read again when it had left the caches. With
    these nodes, each is changed back right after it was computed. The values stay the same.

    Args:
        names: of tensors of four dimensions; what no node puts out is left out.
    """
    graph = network.graph
    known = graph.tensors()
    made = {
        id(tensor): number for number, node in enumerate(graph.nodes) for tensor in node.outputs
    }
    chosen = [known[name] for name in names if id(known[name]) in made]
    first, end, axes = (
        gs.Constant(f"{NAME}.{name}", np.array(value, np.int64))
        for name, value in (("starts", [0, 0]), ("ends", [1, 1]), ("axes", [1, 2]))
    )
    for tensor in sorted(chosen, key=lambda t: -made[id(t)]):
        row = gs.Variable(f"{NAME}.{tensor.name}", dtype=tensor.dtype)
        graph.nodes.append(gs.Node("Slice", row.name, None, [tensor, first, end, axes], [row]))
        graph.outputs.append(row)
