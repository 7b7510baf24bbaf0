"""One network in 8 bits: calibrated once, then written with any calibrator and any layers kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx

from tdc_calibration.calibrators import CALIBRATORS, Calibrator, Range, ranges_of
from tdc_calibration.histograms import Histogram, activation_names, collect
from tdc_calibration.int8 import Scheme, quantise, weighted_nodes, with_exact_weights
from tdc_deploy.backends.base import Backend
from tdc_deploy.compress import PARTS
from tdc_deploy.graph.network import Network, model_of
from tdc_deploy.samples import SPLIT_FROM, Samples
from tdc_deploy.verify import Outputs, compare_outputs, run_all

# Every so many-th of the calibration samples judges, and the others calibrate.
JUDGES = 4


class Int8Network:
    """A float32 network without fused chains, and what it is in Q/DQ form after calibration on `samples`.

    `layers` are what may go back to float32: a node with stored weights, or all the parts of a layer that
    was decomposed; by name, each with its nodes.
    """

    symmetric = False
    """Whether ranges are as wide on both sides of 0."""

    def __init__(
        self, network: Network, samples: Samples, backend: Backend, scheme: Scheme
    ) -> None:
        self.network = network
        self.scheme = scheme
        self.layers = layers_of(network)
        self._backend = backend
        self._fitted, self._judging = _split(samples)
        self._ranges: dict[Calibrator, dict[str, Range]] = {}

    def model(self, calibrator: Calibrator, keep: Collection[str] = ()) -> onnx.ModelProto:
        """The network in Q/DQ form, with the layers `keep` in float32."""
        nodes = self.nodes_of(keep)
        return quantise(self.network.copy(), self.ranges(calibrator), self.scheme, nodes)

    def nodes_of(self, layers: Collection[str]) -> list[str]:
        """The nodes of these layers."""
        return [node for layer in layers for node in self.layers.get(layer, ())]

    def ranges(self, calibrator: Calibrator) -> dict[str, Range]:
        """The range of every activation."""
        if calibrator not in self._ranges:
            made = ranges_of(self._histograms, calibrator, symmetric=self.symmetric)
            self._ranges[calibrator] = made
        return self._ranges[calibrator]

    def best_calibrator(self) -> Calibrator:
        """The calibrator whose ranges leave the least error of the outputs on samples that it did not see.

        Weights are exact meanwhile: one layer that 8 bits ruin would hide all that ranges do.
        """
        errors = {
            c: self.error(with_exact_weights(self.model(c), self.network)) for c in CALIBRATORS
        }
        return min(CALIBRATORS, key=lambda c: errors[c])

    def error_alone(self, calibrator: Calibrator, layer: str) -> float:
        """The error of the outputs where this layer alone computes in 8 bits."""
        return self.error(self.model(calibrator, [name for name in self.layers if name != layer]))

    def error(self, model: onnx.ModelProto) -> float:
        """A model's relative error against the float32 network, on the judging samples."""
        with self._backend.runner(model) as runner:
            outputs = run_all(runner, self._judging)
        return compare_outputs(self._exact, outputs, self._judging).error

    @cached_property
    def _exact(self) -> Outputs:
        with self._backend.runner(model_of(self.network)) as runner:
            return run_all(runner, self._judging)

    @cached_property
    def _histograms(self) -> dict[str, Histogram]:
        names = activation_names(self.network)
        return collect(self.network, names, self._fitted, self._backend)


def layers_of(network: Network) -> Mapping[str, Sequence[str]]:
    """Layer → its nodes with weights, in graph order."""
    layers: dict[str, list[str]] = {}
    for node in weighted_nodes(network):
        layers.setdefault(layer_of(node), []).append(node)
    return layers


def layer_of(node: str) -> str:
    """The layer that a node is a part of, by its name: itself where it is none."""
    part = next((part for part in PARTS if node.endswith(part)), "")
    return node.removesuffix(part)


def _split(samples: Samples) -> tuple[Samples, Samples]:
    """(that calibrate, that judge); few do both."""
    if len(samples) < SPLIT_FROM:
        return samples, samples
    rows = np.arange(len(samples))
    judging = rows % JUDGES == JUDGES - 1
    return samples.take(rows[~judging]), samples.take(rows[judging])
