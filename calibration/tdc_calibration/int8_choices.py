"""Planning for INT8: each layer's candidates in Q/DQ form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from tdc_calibration.int8 import REVISION, Scheme, any_ranges, quantise
from tdc_deploy.graph.network import network_of
from tdc_deploy.profiling.bounds import Roofline
from tdc_deploy.profiling.layers import layer_model
from tdc_deploy.ranks.choices import OnnxRuntimeChoices
from tdc_deploy.types import Candidate, ConvLayer, Precision


@dataclass(frozen=True)
class Int8Choices:
    """What ONNX Runtime is offered in FP32, but chains as three convolutions, all in 8 bits."""

    scheme: Scheme
    paper_grid: bool = False

    @property
    def revisions(self) -> Mapping[Precision, int]:
        """That of the Q/DQ form."""
        return {"int8": REVISION}

    def offered(self, layer: ConvLayer) -> list[Candidate]:
        """The candidates of a layer but dense."""
        offered = OnnxRuntimeChoices(self.paper_grid).offered(layer)
        return [replace(c, implementation="native", precision="int8") for c in offered]

    def worth_measuring(
        self,
        layer: ConvLayer,
        candidates: Sequence[Candidate],
        errors: NDArray[np.float64],
        dense_ms: float,
        roofline: Roofline,
    ) -> list[int]:
        """Indices of the candidates to measure; `dense_ms` and `roofline` are those of INT8."""
        choices = OnnxRuntimeChoices(self.paper_grid)
        return choices.worth_measuring(layer, candidates, errors, dense_ms, roofline)

    def model(self, layer: ConvLayer, candidate: Candidate) -> onnx.ModelProto:
        """A model of just this layer, from 8 bits to 8 bits as inside a network."""
        return int8_layer_model(layer, candidate, self.scheme)


def int8_layer_model(layer: ConvLayer, candidate: Candidate, scheme: Scheme) -> onnx.ModelProto:
    """`layer_model` in Q/DQ form, its input and output quantised."""
    network = network_of(layer_model(replace(layer, dtype="float32"), candidate))
    model = quantise(network, any_ranges(network.graph), scheme)
    _cut_ends(model.graph)
    return model


def _cut_ends(graph: onnx.GraphProto) -> None:
    """Leave out the first QuantizeLinear and the last DequantizeLinear."""
    (value,), (result,) = graph.input, graph.output
    first = next(node for node in graph.node if value.name in node.input)
    last = next(node for node in graph.node if result.name in node.output)
    zero = next(tensor for tensor in graph.initializer if tensor.name == first.input[2])
    for end, name in ((value, first.output[0]), (result, last.input[0])):
        end.type.tensor_type.elem_type = zero.data_type
        end.name = name
    graph.node.remove(first)
    graph.node.remove(last)
