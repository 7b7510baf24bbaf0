"""What a fused operator cannot hold of the chain that it came from; kept in the model's metadata.

A record is a JSON object: `name` of the fused node; `compressed`, true for a decomposition of a larger
kernel; by role (first, first_activation, core, …) the names of the chain's `nodes`, their output
`tensors`, `weights` and `biases` (no entry: no bias); `residual_first`, true if the residual is Add's
first operand; `default_alpha`, the LeakyRelus that leave their slope to ONNX's default.
"""

from __future__ import annotations

from typing import Any

import onnx_graphsurgeon as gs

from tdc_deploy.graph.functions import TUCKER_CONV_ADD

Record = dict[str, Any]

ROLES = ("first", "first_activation", "core", "core_activation", "last", "add", "activation")
CONV_ROLES = ("first", "core", "last")

SLOPE_OF = {
    "first_activation": "first_slope",
    "core_activation": "core_slope",
    "activation": "slope",
}
"""Role of an activation → the operator's attribute for it."""

_MAPPINGS = ("nodes", "tensors", "weights", "biases")


def default_record(node: gs.Node) -> Record:
    """A record for a fused node that has none: every bias is there, names follow the node's."""
    name = node.name or node.outputs[0].name
    nodes = {role: f"{name}/{role}" for role in roles_of(node)}
    return {
        "name": node.name,
        "compressed": False,
        "nodes": nodes,
        "tensors": dict(nodes),
        "weights": {role: f"{name}/{role}.weight" for role in CONV_ROLES},
        "biases": {role: f"{name}/{role}.bias" for role in CONV_ROLES},
        "residual_first": False,
        "default_alpha": [],
    }


def roles_of(node: gs.Node) -> list[str]:
    """The roles that a fused node's chain has, in order."""
    absent = {role for role, slope in SLOPE_OF.items() if node.attrs[slope] == 1.0}
    if node.op != TUCKER_CONV_ADD:
        absent.add("add")
    return [role for role in ROLES if role not in absent]


def describes(record: Record, node: gs.Node) -> bool:
    """True if the record tells all that un-fusing the node needs: other tools may have edited either."""
    if any(key not in record for key in (*_MAPPINGS, "residual_first", "default_alpha")):
        return False
    roles = roles_of(node)
    complete = list(record["nodes"]) == roles == list(record["tensors"])
    return complete and list(record["weights"]) == list(CONV_ROLES)


def valid_records(value: Any) -> list[Record]:
    """Those entries of a decoded JSON value that are records; metadata may be damaged or another's.

    For a chain of plain nodes, `name`, `compressed` and the core's name in `nodes` are enough.
    """
    return [entry for entry in value if _is_record(entry)] if isinstance(value, list) else []


def _is_record(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return False
    mappings = [entry[key] for key in _MAPPINGS if key in entry]
    return (
        "nodes" in entry
        and all(map(_is_mapping, mappings))
        and isinstance(entry.get("default_alpha", []), list)
    )


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(
        role in ROLES and isinstance(name, str) for role, name in value.items()
    )
