"""Tensor names that nothing else in the graph has."""

from __future__ import annotations

import onnx_graphsurgeon as gs


class Names:
    """The tensor names of a graph and of its subgraphs, and new ones beside them."""

    def __init__(self, graph: gs.Graph) -> None:
        self._taken = set(graph.tensors())
        for node in graph.nodes:
            for attribute in node.attrs.values():
                if isinstance(attribute, gs.Graph):
                    self._taken |= Names(attribute)._taken

    def fresh(self, name: str) -> str:
        """`name`, or where it is taken `name_1`, `name_2`, …; taken from now on."""
        free, serial = name, 1
        while free in self._taken:
            free, serial = f"{name}_{serial}", serial + 1
        self._taken.add(free)
        return free
