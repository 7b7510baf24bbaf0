"""Find the chains 1x1 → kxk → 1x1 that one fused operator can replace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from tdc_deploy.graph.convs import has_bias
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
    outputs = {id(tensor) for tensor in network.graph.outputs}
    used: set[int] = set()
    chains = []
    for node in network.graph.nodes:
        chain = _chain_from(node, outputs, shapes)
        if chain is None or used & {id(n) for n in chain.nodes.values()}:
            continue
        used |= {id(n) for n in chain.nodes.values()}
        chains.append(chain)
    return chains


def compressed_chains(network: Network, chains: Iterable[Chain]) -> list[Chain]:
    """Those chains that are Tucker decompositions: recorded as such, or of that form."""
    recorded = {
        record.get("nodes", {}).get("core")
        for record in network.chain_records
        if record.get("compressed")
    }
    return [chain for chain in chains if chain.core.name in recorded or chain.looks_compressed]


def _chain_from(first: gs.Node, outputs: set[int], shapes: Shapes) -> Chain | None:
    if not _is_plain_pointwise(first):
        return None
    first_activation, core = _activation_then(first, outputs)
    if core is None or not _is_core(core):
        return None
    core_activation, last = _activation_then(core, outputs)
    if last is None or not _is_plain_pointwise(last):
        return None
    add, residual = _residual_after(last, outputs, shapes)
    activation = _activation_after(add or last, outputs)
    return Chain(first, first_activation, core, core_activation, last, add, residual, activation)


def _activation_then(node: gs.Node, outputs: set[int]) -> tuple[gs.Node | None, gs.Node | None]:
    activation = _activation_after(node, outputs)
    return activation, _only_reader(activation or node, outputs)


def _activation_after(node: gs.Node, outputs: set[int]) -> gs.Node | None:
    reader = _only_reader(node, outputs)
    if reader is None or reader.op not in ("Relu", "LeakyRelu") or reader.domain:
        return None
    # A LeakyRelu of slope 0 or 1 would come back from un-fusing as another node.
    return reader if reader.op == "Relu" or slope_of(reader) not in (0.0, 1.0) else None


def _residual_after(
    last: gs.Node, outputs: set[int], shapes: Shapes
) -> tuple[gs.Node | None, gs.Variable | None]:
    add = _only_reader(last, outputs)
    if add is None or add.op != "Add" or add.inputs[0] is add.inputs[1]:
        return None, None
    y = last.outputs[0]
    residual = add.inputs[1] if add.inputs[0] is y else add.inputs[0]
    same_shape = y.name in shapes and shapes.get(residual.name) == shapes[y.name]
    if not isinstance(residual, gs.Variable) or not same_shape:
        return None, None
    return add, residual


def _only_reader(node: gs.Node, outputs: set[int]) -> gs.Node | None:
    tensor = node.outputs[0]
    if id(tensor) in outputs or len(tensor.outputs) != 1:
        return None
    reader: gs.Node = tensor.outputs[0]
    # A convolution whose weight is computed from this tensor does not read it as its input.
    if reader.op == "Conv" and (reader.inputs[0] is not tensor or tensor in reader.inputs[1:]):
        return None
    return reader


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
    if node.op != "Conv" or node.domain or "pads" not in node.attrs or node.attrs["group"] != 1:
        return False
    weight = node.inputs[1]
    if not isinstance(weight, gs.Constant) or len(weight.shape) != 4 or weight.dtype != np.float32:
        return False
    return not has_bias(node) or isinstance(node.inputs[2], gs.Constant)
