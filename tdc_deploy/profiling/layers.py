"""Measure a layer in each of its forms, alone, at its real shape."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import onnx

from tdc_deploy.backends.base import Backend
from tdc_deploy.profiling.measure import LAYER
from tdc_deploy.profiling.store import Store
from tdc_deploy.tucker.cost import chain_layers
from tdc_deploy.types import Candidate, ConvLayer, Timing

OPSET = 17
IR_VERSION = 8


def layer_model(layer: ConvLayer, candidate: Candidate) -> onnx.ModelProto:
    """A model of just this layer in this form; input x [batch, C, H, W], random weights.

    Convolution time does not depend on the values, as long as none is denormal.
    """
    rng = np.random.default_rng(0)
    parts = chain_layers(layer, candidate)
    nodes, weights = [], []
    for i, part in enumerate(parts):
        fan_in = part.c_in * part.kernel[0] * part.kernel[1]
        values = rng.standard_normal((part.c_out, part.c_in, *part.kernel), np.float32)
        weights.append(onnx.numpy_helper.from_array(values / np.float32(fan_in**0.5), f"w{i}"))
        weights.append(onnx.numpy_helper.from_array(np.full(part.c_out, 0.1, np.float32), f"b{i}"))
        output = "y" if i == len(parts) - 1 else f"t{i + 1}"
        nodes.append(
            onnx.helper.make_node(
                "Conv",
                ["x" if i == 0 else f"t{i}", f"w{i}", f"b{i}"],
                [output],
                strides=part.strides,
                pads=part.pads,
                dilations=part.dilations,
            )
        )
    float32 = onnx.TensorProto.FLOAT
    x = onnx.helper.make_tensor_value_info("x", float32, [layer.batch, layer.c_in, *layer.in_hw])
    y = onnx.helper.make_tensor_value_info("y", float32, [layer.batch, layer.c_out, *layer.out_hw])
    graph = onnx.helper.make_graph(nodes, "layer", [x], [y], weights)
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


class LayerProfiler:
    """Latencies of layers on one backend, asked of the store first.

    `measured` counts those that had to be measured.
    """

    def __init__(self, backend: Backend, store: Store) -> None:
        self.backend = backend
        self.store = store
        self.measured = 0

    def latency(self, layer: ConvLayer, candidate: Candidate) -> float:
        """The median latency in milliseconds."""
        description = self._describe(layer, candidate)
        known = self.store.get("layer", description)
        if known is None:
            timing = self._measure(layer, candidate)
            self.measured += 1
            known = asdict(timing)
            self.store.put("layer", description, known)
        return Timing(**known).median

    def _measure(self, layer: ConvLayer, candidate: Candidate) -> Timing:
        x = np.random.default_rng(1).standard_normal(
            (layer.batch, layer.c_in, *layer.in_hw), np.float32
        )
        return self.backend.measure(layer_model(layer, candidate), {"x": x}, LAYER)

    def _describe(self, layer: ConvLayer, candidate: Candidate) -> dict[str, Any]:
        """Everything that changes the latency: the layer without its name, the form without its error."""
        shape = asdict(layer)
        del shape["name"]
        form = asdict(candidate)
        del form["error"], form["latency_ms"]
        return {"backend": self.backend.describe(), "layer": shape, "candidate": form}
