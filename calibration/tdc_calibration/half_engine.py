"""Which nodes of an engine's network stay float32 where it computes in fp16; measured on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tdc_calibration.half_choice import SAMPLES, exact_nodes
from tdc_calibration.half_network import HalfNetwork
from tdc_calibration.limits import Limits
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.graph.network import Network
from tdc_deploy.planner import Goal
from tdc_deploy.progress import Progress
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source


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
            return self._limits.hold(half.model(layers))

        return frozenset(exact_nodes(half, holds, self.progress))

    @cached_property
    def _limits(self) -> Limits:
        return Limits(self.source, self.samples, self.goal, self.backend)
