"""Which nodes of an engine's network stay float32 where it computes in fp16; measured on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

from tdc_calibration.half_choice import SAMPLES, exact_nodes
from tdc_calibration.half_network import HalfNetwork
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.builder import beyond
from tdc_deploy.graph.network import Network
from tdc_deploy.planner import Goal
from tdc_deploy.progress import Progress
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source
from tdc_deploy.verify import Outputs, compare_outputs, run_all


@dataclass(frozen=True, eq=False)
class ExactNodes:
    """Finds them for a source's networks, on the samples that do not verify; the goal's limits are looked
    at on those that do.
    """

    source: Source
    samples: Samples
    goal: Goal
    backend: OnnxRuntimeBackend
    progress: Progress

    def __call__(self, network: Network) -> frozenset[str]:
        """The names of the nodes of a network without fused chains that stay float32."""
        return self._of_source if network is self.source.network else self._found(network)

    @cached_property
    def _of_source(self) -> frozenset[str]:
        return self._found(self.source.network)

    def _found(self, network: Network) -> frozenset[str]:
        seen = self.samples.split()[0].spread(SAMPLES)
        half = HalfNetwork(network, seen, self.backend)

        def holds(layers: Sequence[str]) -> bool:
            return self._holds(half.model(layers))

        return frozenset(exact_nodes(half, holds, self.progress))

    def _holds(self, model: onnx.ModelProto) -> bool:
        verifying = self.samples.split()[1]
        with self.backend.runner(model) as runner:
            comparison = compare_outputs(self._reference, run_all(runner, verifying), verifying)
        return not beyond(comparison, self.goal.max_error, self.goal.max_accuracy_drop)

    @cached_property
    def _reference(self) -> Outputs:
        with self.backend.runner(self.source.path) as runner:
            return run_all(runner, self.samples.split()[1])
