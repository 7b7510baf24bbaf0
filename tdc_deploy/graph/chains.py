"""Find the chains 1x1 → kxk → 1x1 that one fused operator can replace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from tdc_deploy.graph.convs import PLANNED_TYPES, has_bias
from tdc_deploy.graph.network import Network
from tdc_deploy.graph.shapes import Shapes
from tdc_deploy.types import Ranks

FUSABLE_KERNELS = (1, 3, 5, 7)

# LeakyRelu's default in the ONNX standard.
DEFAULT_ALPHA = 0.01


@dataclass(frozen=True, eq=False)
class Chain:
    """The nodes that one fused operator absorbs; None where the chain has no such node.

    The activations are Relu or LeakyRelu; `add` adds `residual` to the last convolution's output.
    """

    first: gs.Node
    first_activation: gs.Node | None
    core: gs.Node
    core_activation: gs.Node | None
    last: gs.Node
    add: gs.Node | None
    residual: gs.Variable | None
    activation: gs.Node | None

    @property
    def nodes(self) -> dict[str, gs.Node]:
        """The nodes that are there, by their role, in graph order."""
        roles = (
            "first",
            "first_activation",
            "core",
            "core_activation",
            "last",
            "add",
            "activation",
        )
        return {role: getattr(self, role) for role in roles if getattr(self, role) is not None}

    @property
    def input(self) -> gs.Variable:
        """X, [N, C, H, W]."""
        return self.first.inputs[0]

    @property
    def output(self) -> gs.Variable:
        """Y, [N, M, H', W']."""
        return list(self.nodes.values())[-1].outputs[0]

    @property
    def ranks(self) -> Ranks:
        """The channels between the three convolutions."""
        r_out, r_in = self.core.inputs[1].shape[:2]
        return Ranks(r_in, r_out)

    @property
    def channels(self) -> tuple[int, int]:
        """(C, M), the channels outside."""
        return self.first.inputs[1].shape[1], self.last.inputs[1].shape[0]

    @property
    def looks_compressed(self) -> bool:
        """True if the chain has a decomposition's form: no inner activation, both ranks smaller.

        A ResNet-50 bottleneck has inner activations, and is a layer of its own right.
        """
        c, m = self.channels
        inner = self.first_activation or self.core_activation
        return inner is None and self.ranks.r_in < c and self.ranks.r_out < m


def slope_of(activation: gs.Node | None) -> float:
    """The negative slope of an activation node: 1 for none, 0 for Relu."""
    if activation is None:
        return 1.0
    if activation.op == "Relu":
        return 0.0
    return float(activation.attrs.get("alpha", DEFAULT_ALPHA))


def find_chains(network: Network, shapes: Shapes) -> list[Chain]:
    """Every chain, none sharing a node with another; earlier ones in graph order win.

    Intermediates must have one reader and be no graph output. The core is larger than 1x1: three 1x1
    convolutions in a row are better merged.
    """
    finder = _Finder(network.graph, shapes)
    for node in network.graph.nodes:
        finder.start_at(node)
    return finder.chains


def compressed_chains(network: Network, chains: Iterable[Chain]) -> list[Chain]:
    """Those chains that are Tucker decompositions: recorded as such, or of that form."""
    recorded = {
        record["nodes"].get("core") for record in network.chain_records if record.get("compressed")
    }
    return [chain for chain in chains if chain.core.name in recorded or chain.looks_compressed]


class _Finder:
    """Finds the chains of one graph, each of whose nodes belongs to at most one."""

    def __init__(self, graph: gs.Graph, shapes: Shapes) -> None:
        self.chains: list[Chain] = []
        self._shapes = shapes
        self._outputs = {id(tensor) for tensor in graph.outputs}
        # A reader inside an If or a Loop is not one of these.
        self._free = {id(node) for node in graph.nodes}

    def start_at(self, first: gs.Node) -> None:
        """Add the chain that begins at this node, if one does and its nodes are free."""
        if id(first) not in self._free or not _is_plain_pointwise(first):
            return
        first_activation, core = self._activation_then(first)
        if core is None or not _is_core(core):
            return
        core_activation, last = self._activation_then(core)
        if last is None or not _is_plain_pointwise(last):
            return
        add, residual = self._residual_after(last)
        activation = self._activation_after(add or last)
        chain = Chain(
            first, first_activation, core, core_activation, last, add, residual, activation
        )
        self._free -= {id(node) for node in chain.nodes.values()}
        self.chains.append(chain)

    def _activation_then(self, node: gs.Node) -> tuple[gs.Node | None, gs.Node | None]:
        activation = self._activation_after(node)
        return activation, self._only_reader(activation or node)

    def _activation_after(self, node: gs.Node) -> gs.Node | None:
        reader = self._only_reader(node)
        if reader is None or reader.op not in ("Relu", "LeakyRelu") or reader.domain:
            return None
        # A LeakyRelu of slope 0 or 1 would come back from un-fusing as another node.
        return reader if reader.op == "Relu" or slope_of(reader) not in (0.0, 1.0) else None

    def _residual_after(self, last: gs.Node) -> tuple[gs.Node | None, gs.Variable | None]:
        add = self._only_reader(last)
        if add is None or add.op != "Add" or add.inputs[0] is add.inputs[1]:
            return None, None
        y = last.outputs[0]
        residual = add.inputs[1] if add.inputs[0] is y else add.inputs[0]
        same_shape = (
            y.name in self._shapes and self._shapes.get(residual.name) == self._shapes[y.name]
        )
        if not isinstance(residual, gs.Variable) or not same_shape:
            return None, None
        return add, residual

    def _only_reader(self, node: gs.Node) -> gs.Node | None:
        """The one node that reads this one's output, if it is free."""
        tensor = node.outputs[0]
        if id(tensor) in self._outputs or len(tensor.outputs) != 1:
            return None
        reader: gs.Node = tensor.outputs[0]
        # A convolution whose weight is computed from this tensor does not read it as its input.
        if reader.op == "Conv" and (reader.inputs[0] is not tensor or tensor in reader.inputs[1:]):
            return None
        return reader if id(reader) in self._free else None


def _is_plain_pointwise(node: gs.Node) -> bool:
    return (
        _is_stored_conv(node)
        and tuple(node.attrs["kernel_shape"]) == (1, 1)
        and tuple(node.attrs["strides"]) == (1, 1)
        and tuple(node.attrs["dilations"]) == (1, 1)
        and not any(node.attrs["pads"])
    )


def _is_core(node: gs.Node) -> bool:
    kernel = tuple(node.attrs.get("kernel_shape", ()))
    return (
        _is_stored_conv(node)
        and kernel != (1, 1)
        and all(size in FUSABLE_KERNELS for size in kernel)
    )


def _is_stored_conv(node: gs.Node) -> bool:
    """A 2-D, ungrouped Conv whose weight and bias are stored."""
    if node.op != "Conv" or node.domain or "auto_pad" in node.attrs or node.attrs["group"] != 1:
        return False
    weight = node.inputs[1]
    if not isinstance(weight, gs.Constant) or len(weight.shape) != 4:
        return False
    if weight.dtype not in PLANNED_TYPES:
        return False
    return not has_bias(node) or isinstance(node.inputs[2], gs.Constant)
