"""One network in float16: which of its nodes must not be, by what it computes on data."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property

import onnx

from tdc_calibration.histograms import activation_names, extremes
from tdc_deploy.backends.base import Backend
from tdc_deploy.graph.half import COMPUTING, LARGEST, holds_beyond_half, to_half
from tdc_deploy.graph.names import name_nodes
from tdc_deploy.graph.network import Network, fused_nodes, model_of
from tdc_deploy.samples import Samples
from tdc_deploy.verify import Outputs, compare_outputs, run_all

# Other data reach further than those that were seen.
HEADROOM = 2.0

# Sums of products are what loses most; the rest of a network goes with them.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class HalfNetwork:
    """A float32 network, fused or not, and what it is in float16, by what `samples` make of it.

    `overflowing` are the nodes that stay float32 in any case: with a weight beyond float16's range, or
    that read or write activations within HEADROOM of its end. `layers` are the others with weights.
    """

    def __init__(self, network: Network, samples: Samples, backend: Backend) -> None:
        self.network = network.copy()
        name_nodes(self.network.graph)
        self._samples = samples
        self._backend = backend
        self.overflowing = self._overflowing()
        fused = {node.name for node in fused_nodes(self.network.graph)}
        self.layers = [
            node.name
            for node in self.network.graph.nodes
            if (node.op in WEIGHTED or node.name in fused) and node.name not in self.overflowing
        ]

    def model(self, keep: Collection[str] = ()) -> onnx.ModelProto:
        """The network in float16, with the layers `keep` in float32."""
        copied = self.network.copy()
        to_half(copied, {*self.overflowing, *keep})
        return model_of(copied)

    def error_alone(self, layer: str) -> float:
        """The error of the outputs where this layer alone computes in float16."""
        copied = self.network.copy()
        to_half(copied, {node.name for node in copied.graph.nodes if node.name != layer})
        with self._backend.runner(model_of(copied)) as runner:
            outputs = run_all(runner, self._samples)
        return compare_outputs(self._exact, outputs, self._samples).error

    @cached_property
    def _exact(self) -> Outputs:
        with self._backend.runner(model_of(self.network)) as runner:
            return run_all(runner, self._samples)

    def _overflowing(self) -> Sequence[str]:
        names = activation_names(self.network)
        found = extremes(self.network, names, self._samples, self._backend)
        limit = LARGEST / HEADROOM
        large = {name for name, (low, high) in found.items() if max(-low, high) > limit}
        return [
            node.name
            for node in self.network.graph.nodes
            if holds_beyond_half(node)
            or (
                (node.op in COMPUTING or node.domain)
                and any(tensor.name in large for tensor in (*node.inputs, *node.outputs))
            )
        ]
