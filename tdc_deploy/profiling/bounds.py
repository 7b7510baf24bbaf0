"""An analytical lower bound of a layer's latency, to skip what cannot pay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tdc_deploy.tucker import chain_cost, dense_cost
from tdc_deploy.types import Candidate, ConvLayer

# The fastest layer seen may not be the fastest there is.
HEADROOM = 1.3


@dataclass(frozen=True)
class Roofline:
    """The arithmetic rate that no layer exceeds, in multiply-accumulates per millisecond."""

    macs_per_ms: float

    @classmethod
    def from_dense(cls, measured: Iterable[tuple[ConvLayer, float]]) -> Roofline:
        """From dense layers and their measured milliseconds."""
        return cls(HEADROOM * max(dense_cost(layer).macs / ms for layer, ms in measured))

    def lower_bound(self, layer: ConvLayer, candidate: Candidate) -> float:
        """Milliseconds that `candidate` takes at least."""
        return chain_cost(layer, candidate).macs / self.macs_per_ms
