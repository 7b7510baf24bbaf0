"""Replace chains by the fused operators, and back: exact inverses.

The operator has fewer parts than a chain (an absent bias is a vector of zeros, an absent activation a
slope of 1), so what the chain looked like is kept as a record in the model's metadata.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from tdc_deploy.graph import functions as op
from tdc_deploy.graph.chains import Chain, slope_of
from tdc_deploy.graph.convs import bias, has_bias, kernel
from tdc_deploy.graph.names import Names
from tdc_deploy.graph.network import Network, fused_nodes
from tdc_deploy.graph.records import CONV_ROLES, SLOPE_OF, Record, default_record, describes

PLUGIN_VERSION = "1"

# Role of a convolution → the operator's inputs for its weight and bias.
_INPUTS = {
    "first": (op.FIRST, op.FIRST_BIAS),
    "core": (op.CORE, op.CORE_BIAS),
    "last": (op.LAST, op.BIAS),
}


def fuse(network: Network, chains: Iterable[Chain], compressed: Iterable[Chain] = ()) -> None:
    """Replace each chain by one TuckerConv or TuckerConvAdd, in place.

    `compressed` are those of them that are decompositions of a larger kernel; the file remembers it.
    """
    marked = {id(chain) for chain in compressed}
    names = Names(network.graph)
    for chain in chains:
        record = _record_of(chain, id(chain) in marked)
        _remember(network, record)
        _replace(network.graph, chain, record["name"], names)
    network.graph.cleanup().toposort()


def mark_compressed(network: Network, chains: Iterable[Chain]) -> None:
    """Record that these chains are decompositions, in a model that keeps them as plain nodes."""
    for chain in chains:
        _remember(network, _record_of(chain, compressed=True))


def unfuse(network: Network, names: Collection[str] | None = None) -> None:
    """Replace fused operators by the chains they came from, in place: those named, or all.

    A node without a record (another tool wrote it) becomes a chain with every bias present.
    """
    records = {record["name"]: record for record in network.chain_records}
    expansion = _Expansion(network.graph)
    for node in fused_nodes(network.graph):
        if names is None or node.name in names:
            record = records.get(node.name)
            if record is None or not describes(record, node):
                record = default_record(node)
            expansion.expand(node, record)
    network.graph.cleanup().toposort()


def _remember(network: Network, record: Record) -> None:
    core = record["nodes"]["core"]
    others = [other for other in network.chain_records if other["nodes"].get("core") != core]
    network.chain_records = [*others, record]


def _record_of(chain: Chain, compressed: bool) -> Record:
    """The record of a chain that is about to be fused."""
    nodes = chain.nodes
    convs = {role: nodes[role] for role in CONV_ROLES}
    return {
        "name": chain.last.name,
        "compressed": compressed,
        "nodes": {role: node.name for role, node in nodes.items()},
        "tensors": {role: node.outputs[0].name for role, node in nodes.items()},
        "weights": {role: node.inputs[1].name for role, node in convs.items()},
        "biases": {role: node.inputs[2].name for role, node in convs.items() if has_bias(node)},
        "residual_first": chain.add is not None and chain.add.inputs[0] is chain.residual,
        "default_alpha": [
            role
            for role, node in nodes.items()
            if node.op == "LeakyRelu" and "alpha" not in node.attrs
        ],
    }


def _replace(graph: gs.Graph, chain: Chain, name: str, names: Names) -> None:
    first, core, last = kernel(chain.first), kernel(chain.core), kernel(chain.last)
    stored = {
        "first": first[:, :, 0, 0],
        "first_bias": _bias_or_zeros(chain.first),
        "core": core.transpose(2, 3, 0, 1),
        "core_bias": _bias_or_zeros(chain.core),
        "last": last[:, :, 0, 0],
        "bias": _bias_or_zeros(chain.last),
    }
    inputs: list[gs.Tensor] = [chain.input]
    for part, values in stored.items():
        tensor = gs.Constant(names.fresh(f"{name}/{part}"), np.ascontiguousarray(values))
        inputs.append(tensor)
    if chain.residual is not None:
        inputs.append(chain.residual)
    attrs: dict[str, Any] = {
        key: list(chain.core.attrs[key]) for key in ("strides", "pads", "dilations")
    }
    for role, slope in SLOPE_OF.items():
        attrs[slope] = slope_of(getattr(chain, role))
    attrs |= {"plugin_version": PLUGIN_VERSION, "plugin_namespace": ""}
    output = chain.output
    for node in chain.nodes.values():
        _remove(graph, node)
    kind = op.TUCKER_CONV if chain.residual is None else op.TUCKER_CONV_ADD
    graph.nodes.append(gs.Node(kind, name, attrs, inputs, [output], domain=op.DOMAIN))


def _bias_or_zeros(conv: gs.Node) -> np.ndarray[Any, Any]:
    stored = bias(conv)
    weight = conv.inputs[1]
    return np.zeros(weight.shape[0], weight.dtype) if stored is None else stored


def _remove(graph: gs.Graph, node: gs.Node) -> None:
    node.inputs.clear()
    node.outputs.clear()
    graph.nodes.remove(node)


class _Expansion:
    """Turns fused nodes of one graph back into chains."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self._names = Names(graph)
        self._constants = {
            name: tensor
            for name, tensor in graph.tensors().items()
            if isinstance(tensor, gs.Constant)
        }

    def expand(self, node: gs.Node, record: Record) -> None:
        """Put the chain of `record` in the place of `node`."""
        inputs, attrs, output = list(node.inputs), dict(node.attrs), node.outputs[0]
        _remove(self._graph, node)
        value = inputs[op.X]
        roles = list(record["nodes"])
        for role in roles:
            if role in _INPUTS:
                made = self._conv(role, value, inputs, attrs, record)
            elif role == "add":
                operands = [value, inputs[op.R]]
                made = gs.Node(
                    "Add", inputs=operands[::-1] if record["residual_first"] else operands
                )
            else:
                made = _activation(attrs[SLOPE_OF[role]], value, role in record["default_alpha"])
            made.name = record["nodes"][role]
            value = output
            if role != roles[-1]:
                value = gs.Variable(self._names.fresh(record["tensors"][role]), output.dtype)
            made.outputs = [value]
            self._graph.nodes.append(made)

    def _conv(
        self,
        role: str,
        x: gs.Tensor,
        inputs: list[gs.Tensor],
        attrs: dict[str, Any],
        record: Record,
    ) -> gs.Node:
        weight_at, bias_at = _INPUTS[role]
        stored = np.asarray(inputs[weight_at].values)
        weight = stored.transpose(2, 3, 0, 1) if role == "core" else stored[:, :, None, None]
        operands = [x, self._constant(record["weights"][role], weight)]
        if role in record["biases"]:
            values = np.asarray(inputs[bias_at].values)
            operands.append(self._constant(record["biases"][role], values))
        geometry = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1]}
        if role == "core":
            geometry = {key: list(attrs[key]) for key in geometry}
        shape = {"group": 1, "kernel_shape": list(weight.shape[2:])}
        return gs.Node("Conv", attrs={**geometry, **shape}, inputs=operands)

    def _constant(self, name: str, values: np.ndarray[Any, Any]) -> gs.Constant:
        """A constant of that value: the one of that name, if the graph has it, since chains may have
        shared a weight.
        """
        values = np.ascontiguousarray(values)
        known = self._constants.get(name)
        if known is not None and _same(known.values, values):
            return known
        made = gs.Constant(self._names.fresh(name), values)
        self._constants.setdefault(name, made)
        return made


def _same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _activation(slope: float, x: gs.Tensor, default_alpha: bool) -> gs.Node:
    if slope == 0.0:
        return gs.Node("Relu", inputs=[x])
    attrs = {} if default_alpha else {"alpha": slope}
    return gs.Node("LeakyRelu", attrs=attrs, inputs=[x])
