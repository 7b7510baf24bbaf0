"""The table that the solvers choose from: per layer, each candidate with its error and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tdc_deploy.profiling.bounds import Roofline
from tdc_deploy.profiling.layers import LayerProfiler
from tdc_deploy.progress import Progress
from tdc_deploy.ranks.choices import Choices
from tdc_deploy.source import Source
from tdc_deploy.tucker import chain_cost
from tdc_deploy.types import DENSE, Candidate, ConvLayer, Decomposition

ErrorsOf = Callable[[str, Sequence[Candidate]], list[float]]
"""What each candidate of a named layer loses."""


@dataclass(frozen=True)
class Row:
    """A layer and its candidates, dense first; every one with its error and its measured latency.

    `penalties` are what candidates add to the square of the network's output error, by form and ranks,
    where that was estimated; of others it is taken to be the energy that they lose. `rounding` is what
    computing the layer in INT8 adds.
    """

    layer: ConvLayer
    candidates: tuple[Candidate, ...]
    penalties: Mapping[Decomposition, float] = field(default_factory=dict)
    rounding: float = 0.0

    @property
    def dense_ms(self) -> float:
        """The layer's latency as it is, in milliseconds."""
        return latency(self.candidates[0])

    def penalty(self, candidate: Candidate) -> float:
        """What `candidate` adds to the square of the network's output error, as far as it is additive."""
        rounding = self.rounding if candidate.precision == "int8" else 0.0
        return self.penalties.get(candidate.decomposition, candidate.error) + rounding

    def macs(self, candidate: Candidate) -> int:
        """Multiply-accumulates of the layer as `candidate`."""
        return chain_cost(self.layer, candidate).macs


@dataclass(frozen=True)
class CostTable:
    """All layers that a plan may change, by name."""

    rows: dict[str, Row]

    @property
    def dense_ms(self) -> float:
        """Sum of the dense layers' latencies alone, in milliseconds."""
        return sum(row.dense_ms for row in self.rows.values())

    def penalty(self, selection: dict[str, Candidate]) -> float:
        """Sum of the layers' penalties."""
        return sum(self.rows[name].penalty(c) for name, c in selection.items())

    def saved_ms(self, selection: dict[str, Candidate]) -> float:
        """By how much the selection lowers that sum, in milliseconds."""
        return sum(self.rows[name].dense_ms - latency(c) for name, c in selection.items())


def latency(candidate: Candidate) -> float:
    """The candidate's latency, which a table always has."""
    assert candidate.latency_ms is not None
    return candidate.latency_ms


def build_table(
    source: Source,
    profiler: LayerProfiler,
    progress: Progress,
    choices: Choices,
    errors_of: ErrorsOf | None = None,
) -> CostTable:
    """Measure what is worth measuring; layers of one shape are measured once.

    `errors_of` gives what candidates of a layer lose, by default the source's decompositions.
    """
    errors_of = errors_of or source.decompositions.errors
    groups = _by_shape(source)
    shapes = [(shape, DENSE) for shape in groups]
    times = profiler.latencies(shapes, progress, "measuring dense layers")
    dense = dict(zip(groups, times, strict=True))
    if not dense:
        return CostTable({})
    roofline = Roofline.from_dense(dense.items())
    offers = {
        shape: _offer(errors_of, names, shape, choices, dense[shape], roofline)
        for shape, names in groups.items()
    }
    wanted = [(shape, candidate) for shape, (offer, _) in offers.items() for candidate in offer]
    measured = iter(profiler.latencies(wanted, progress, "measuring candidates"))
    rows: dict[str, Row] = {}
    for shape, (offer, errors) in offers.items():
        times = [next(measured) for _ in offer]
        for name, lost in zip(groups[shape], errors, strict=True):
            rows[name] = _row(source.plannable[name], dense[shape], offer, lost, times)
    return CostTable({name: rows[name] for name in source.plannable})


def _by_shape(source: Source) -> dict[ConvLayer, list[str]]:
    groups: dict[ConvLayer, list[str]] = {}
    for name, layer in source.plannable.items():
        groups.setdefault(replace(layer, name=""), []).append(name)
    return groups


def _offer(
    errors_of: ErrorsOf,
    names: list[str],
    shape: ConvLayer,
    choices: Choices,
    dense_ms: float,
    roofline: Roofline,
) -> tuple[list[Candidate], list[list[float]]]:
    """The candidates to measure for a shape, and their errors on each of its layers."""
    candidates = choices.offered(shape)
    if not candidates:
        return [], [[] for _ in names]
    errors = np.array([errors_of(name, candidates) for name in names])
    kept = choices.worth_measuring(shape, candidates, errors, dense_ms, roofline)
    return [candidates[i] for i in kept], errors[:, kept].tolist()


def _row(
    layer: ConvLayer,
    dense_ms: float,
    offer: list[Candidate],
    errors: list[float],
    times: list[float],
) -> Row:
    measured = [
        replace(candidate, error=error, latency_ms=ms)
        for candidate, error, ms in zip(offer, errors, times, strict=True)
        if ms < dense_ms
    ]
    return Row(layer, (replace(DENSE, latency_ms=dense_ms), *measured))
