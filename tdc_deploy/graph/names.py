"""Names that nothing else in the graph has: of tensors, and of nodes."""

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


def name_nodes(graph: gs.Graph) -> None:
    """Give every node a name that no other has, in place; one that is unique already stays."""
    taken: set[str] = set()
    for node in graph.nodes:
        base = node.name or f"{node.op}_{node.outputs[0].name}"
        name, serial = base, 1
        while name in taken:
            name, serial = f"{base}_{serial}", serial + 1
        node.name = name
        taken.add(name)
