"""An ONNX model as a graph that surgery can work on, and back.

onnx-graphsurgeon drops model metadata and functions; `Network` carries them around it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from tdc_deploy.graph.functions import DOMAIN, OPERATORS, SLOPES, VERSION, function_body
from tdc_deploy.graph.records import Record, valid_records

CHAINS_KEY = "tdc.chains"
"""Model metadata that names the chains that are Tucker decompositions; a JSON list of records."""

# Initializers that are no inputs came with IR version 4, model-local functions with 8.
MIN_IR_VERSION = 4
FUNCTIONS_IR_VERSION = 8


@dataclass
class Network:
    """A graph under surgery and what must survive it.

    `metadata` are the model's own key/value pairs without `CHAINS_KEY`, whose decoded value is
    `chain_records`.
    """

    graph: gs.Graph
    ir_version: int
    metadata: dict[str, str] = field(default_factory=dict)
    chain_records: list[Record] = field(default_factory=list)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return int(self.graph.opset)

    def copy(self) -> Network:
        """An independent graph; weights are shared, since surgery replaces and never edits them."""
        return Network(
            self.graph.copy(), self.ir_version, dict(self.metadata), list(self.chain_records)
        )


def fused_nodes(graph: gs.Graph) -> list[gs.Node]:
    """The nodes that are TuckerConv or TuckerConvAdd, in graph order."""
    return [node for node in graph.nodes if node.domain == DOMAIN and node.op in OPERATORS]


def network_of(model: onnx.ModelProto) -> Network:
    """The graph of `model` for surgery; TuckerConv's function bodies are left to `model_of`."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    try:
        records = valid_records(json.loads(metadata.pop(CHAINS_KEY, "[]")))
    except json.JSONDecodeError:
        records = []
    graph = gs.import_onnx(model)
    graph.functions = [
        function
        for function in graph.functions
        if not (function.domain == DOMAIN and function.name in OPERATORS)
    ]
    _detach(graph)
    return Network(graph, max(model.ir_version, MIN_IR_VERSION), metadata, records)


def model_of(network: Network) -> onnx.ModelProto:
    """The complete model: graph, metadata, and the body of each fused operator that it uses."""
    graph = network.graph
    fused = fused_nodes(graph)
    used = sorted({node.op for node in fused})
    graph.import_domains = [
        entry for entry in graph.import_domains or [] if entry.domain != DOMAIN
    ] + ([onnx.helper.make_opsetid(DOMAIN, VERSION)] if used else [])
    model: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
    model.ir_version = max(network.ir_version, FUNCTIONS_IR_VERSION if used else MIN_IR_VERSION)
    for name in used:
        slopes = {
            slope: [node.attrs[slope] for node in fused if node.op == name] for slope in SLOPES
        }
        model.functions.append(function_body(name, network.opset, slopes))
    pairs = dict(network.metadata)
    if network.chain_records:
        pairs[CHAINS_KEY] = json.dumps(network.chain_records)
    onnx.helper.set_model_props(model, pairs)
    return model


def _detach(graph: gs.Graph) -> None:
    """Let go of what still refers to the ONNX model: one reference into it keeps all of its weights alive,
    beside the graph's own.
    """
    graph.import_domains = [
        onnx.helper.make_opsetid(entry.domain, entry.version)
        for entry in graph.import_domains or []
    ]
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant):
            tensor.values = np.asarray(tensor.values)  # until now perhaps not loaded
