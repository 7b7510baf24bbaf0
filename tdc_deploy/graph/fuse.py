"""Replace chains by the fused operators, and back: exact inverses.

The operator has fewer parts than a chain (an absent bias is a vector of zeros, an absent activation a
slope of 1), so what the chain looked like is kept as a record in the model's metadata.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from tdc_deploy.graph import functions as op
from tdc_deploy.graph.chains import Chain, slope_of
from tdc_deploy.graph.convs import bias, has_bias, kernel
from tdc_deploy.graph.network import Network

PLUGIN_VERSION = "1"

# node role → (slope attribute, weight input, bias input)
_CONVS = {
    "first": (op.FIRST, op.FIRST_BIAS),
    "core": (op.CORE, op.CORE_BIAS),
    "last": (op.LAST, op.BIAS),
}
_SLOPES = {
    "first_activation": "first_slope",
    "core_activation": "core_slope",
    "activation": "slope",
}


def fuse(network: Network, chains: Iterable[Chain], compressed: Iterable[Chain] = ()) -> None:
    """Replace each chain by one TuckerConv or TuckerConvAdd, in place.

    `compressed` are those of them that are decompositions of a larger kernel; the file remembers it.
    """
    marked = {id(chain) for chain in compressed}
    for chain in chains:
        record = _record(chain, id(chain) in marked)
        _forget(network, chain.core.name)
        network.chain_records.append(record)
        _replace(network.graph, chain, record["name"])
    network.graph.cleanup().toposort()


def mark_compressed(network: Network, chains: Iterable[Chain]) -> None:
    """Record that these chains are decompositions, for a model that keeps them as plain nodes."""
    for chain in chains:
        _forget(network, chain.core.name)
        network.chain_records.append(_record(chain, compressed=True))


def unfuse(network: Network) -> None:
    """Replace each fused operator by the chain it came from, in place.

    A node without a record (another tool wrote it) becomes a chain with every bias present.
    """
    records = {record.get("name"): record for record in network.chain_records}
    constants = {
        name: tensor
        for name, tensor in network.graph.tensors().items()
        if isinstance(tensor, gs.Constant)
    }
    for node in list(network.graph.nodes):
        if node.domain == op.DOMAIN and node.op in op.OPERATORS:
            record = records.get(node.name) or _default_record(node)
            _expand(network.graph, node, record, constants)
    network.graph.cleanup().toposort()


def _record(chain: Chain, compressed: bool) -> dict[str, Any]:
    """What the fused operator cannot hold: names, absent biases, the order of Add's operands."""
    convs = {"first": chain.first, "core": chain.core, "last": chain.last}
    return {
        "name": chain.last.name,
        "compressed": compressed,
        "nodes": {role: node.name for role, node in chain.nodes.items()},
        "tensors": {role: node.outputs[0].name for role, node in chain.nodes.items()},
        "weights": {role: node.inputs[1].name for role, node in convs.items()},
        "biases": {role: node.inputs[2].name for role, node in convs.items() if has_bias(node)},
        "residual_first": chain.add is not None and chain.add.inputs[0] is chain.residual,
    }


def _default_record(node: gs.Node) -> dict[str, Any]:
    name = node.name or node.outputs[0].name
    roles = ["first", "core", "last"]
    if node.op == op.TUCKER_CONV_ADD:
        roles.append("add")
    roles += [role for role, slope in _SLOPES.items() if node.attrs[slope] != 1.0]
    order = ("first", "first_activation", "core", "core_activation", "last", "add", "activation")
    nodes = {role: f"{name}/{role}" for role in order if role in roles}
    return {
        "nodes": nodes,
        "tensors": dict(nodes),
        "weights": {role: f"{name}/{role}.weight" for role in _CONVS},
        "biases": {role: f"{name}/{role}.bias" for role in _CONVS},
        "residual_first": False,
    }


def _forget(network: Network, core_name: str) -> None:
    network.chain_records = [
        record
        for record in network.chain_records
        if record.get("nodes", {}).get("core") != core_name
    ]


def _replace(graph: gs.Graph, chain: Chain, name: str) -> None:
    first, core, last = kernel(chain.first), kernel(chain.core), kernel(chain.last)
    inputs: list[gs.Tensor] = [
        chain.input,
        gs.Constant(f"{name}/first", first[:, :, 0, 0]),
        _bias_or_zeros(chain.first, f"{name}/first_bias"),
        gs.Constant(f"{name}/core", np.ascontiguousarray(core.transpose(2, 3, 0, 1))),
        _bias_or_zeros(chain.core, f"{name}/core_bias"),
        gs.Constant(f"{name}/last", last[:, :, 0, 0]),
        _bias_or_zeros(chain.last, f"{name}/bias"),
    ]
    if chain.residual is not None:
        inputs.append(chain.residual)
    attrs: dict[str, Any] = {
        key: list(chain.core.attrs[key]) for key in ("strides", "pads", "dilations")
    }
    for role, slope in _SLOPES.items():
        attrs[slope] = slope_of(getattr(chain, role))
    attrs |= {"plugin_version": PLUGIN_VERSION, "plugin_namespace": ""}
    output = chain.output
    for node in chain.nodes.values():
        node.inputs.clear()
        node.outputs.clear()
        graph.nodes.remove(node)
    kind = op.TUCKER_CONV if chain.residual is None else op.TUCKER_CONV_ADD
    graph.nodes.append(
        gs.Node(kind, name, attrs, inputs=inputs, outputs=[output], domain=op.DOMAIN)
    )


def _bias_or_zeros(conv: gs.Node, name: str) -> gs.Constant:
    stored = bias(conv)
    if stored is None:
        stored = np.zeros(conv.inputs[1].shape[0], conv.inputs[1].dtype)
    return gs.Constant(name, stored)


def _expand(
    graph: gs.Graph, node: gs.Node, record: dict[str, Any], constants: dict[str, gs.Constant]
) -> None:
    inputs, attrs, output = list(node.inputs), dict(node.attrs), node.outputs[0]
    node.inputs.clear()
    node.outputs.clear()
    graph.nodes.remove(node)
    value = inputs[op.X]
    roles = list(record["nodes"])
    for role in roles:
        result = gs.Variable(record["tensors"][role], output.dtype)
        if role == roles[-1]:
            result = output
        if role in _CONVS:
            made = _conv(role, value, inputs, attrs, record, constants)
        elif role == "add":
            operands = [value, inputs[op.R]]
            made = gs.Node("Add", inputs=operands[::-1] if record["residual_first"] else operands)
        else:
            made = _activation(attrs[_SLOPES[role]], value)
        made.name = record["nodes"][role]
        made.outputs = [result]
        graph.nodes.append(made)
        value = result


def _conv(
    role: str,
    x: gs.Tensor,
    inputs: list[gs.Tensor],
    attrs: dict[str, Any],
    record: dict[str, Any],
    constants: dict[str, gs.Constant],
) -> gs.Node:
    weight_at, bias_at = _CONVS[role]
    stored = np.asarray(inputs[weight_at].values)
    weight = stored.transpose(2, 3, 0, 1) if role == "core" else stored[:, :, None, None]
    operands = [x, _constant(record["weights"][role], weight, constants)]
    if role in record["biases"]:
        values = np.asarray(inputs[bias_at].values)
        operands.append(_constant(record["biases"][role], values, constants))
    geometry = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1]}
    if role == "core":
        geometry = {key: list(attrs[key]) for key in geometry}
    return gs.Node(
        "Conv",
        attrs={**geometry, "group": 1, "kernel_shape": list(weight.shape[2:])},
        inputs=operands,
    )


def _activation(slope: float, x: gs.Tensor) -> gs.Node:
    if slope == 0.0:
        return gs.Node("Relu", inputs=[x])
    return gs.Node("LeakyRelu", attrs={"alpha": slope}, inputs=[x])


def _constant(
    name: str, values: np.ndarray[Any, Any], constants: dict[str, gs.Constant]
) -> gs.Constant:
    """The constant of that name and value; two chains may have shared one, and an edited file may
    have put other values under the name.
    """
    values = np.ascontiguousarray(values)
    while name in constants:
        if np.array_equal(constants[name].values, values):
            return constants[name]
        name += "'"
    constants[name] = gs.Constant(name, values)
    return constants[name]
