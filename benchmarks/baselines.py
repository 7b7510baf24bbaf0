"""Two rules that choose ranks without measuring layers, brought to a measured time by bisection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.plans import tucker
from tdc_deploy.compress import Selection
from tdc_deploy.graph.convs import kernel
from tdc_deploy.ranks.candidates import SMALL_CHANNELS
from tdc_deploy.source import Source
from tdc_deploy.tucker import chain_cost, dense_cost, svd_errors, tucker2_errors
from tdc_deploy.types import Candidate, ConvLayer, Ranks

Rule = Callable[[Source, float], Selection]
"""The forms of a source's layers at a share in (0, 1]; the smaller the share, the less arithmetic."""

# What CPU kernels work on: finer ranks cost time and give nothing back, but in narrow layers.
STEP, FINE_STEP = 8, 4

# Of the energy that is lost, from all of it down.
DECADES = 6

STEPS = 8
TOLERANCE = 0.02


def uniform(source: Source, share: float) -> Selection:
    """The same share of the channels in every layer and mode."""
    selection: dict[str, Candidate] = {}
    for name, layer in source.plannable.items():
        ranks = [_rounded(share * channels, channels) for channels in _channels(layer)]
        chosen = _svd(layer, min(ranks)) if layer.is_pointwise else tucker(layer, *ranks)
        _choose(selection, name, layer, chosen)
    return selection


def energy(source: Source, share: float) -> Selection:
    """In every layer the ranks of least arithmetic that lose at most 10^(−DECADES·share) of the kernel's
    energy: what matters lies between a tenth and a thousandth, which shares of what is kept would crowd.
    """
    selection: dict[str, Candidate] = {}
    lost = 10 ** (-DECADES * share)
    for name, layer in source.plannable.items():
        if layer.is_pointwise:
            errors = svd_errors(kernel(source.convs[name].node))
            ranks = [rank for rank in _grid(min(_channels(layer))) if errors[rank] <= lost]
            chosen = [_svd(layer, rank) for rank in ranks]
        else:
            table = tucker2_errors(
                kernel(source.convs[name].node), source.decompositions.bases(name)
            )
            ins, outs = (_grid(channels) for channels in _channels(layer))
            kept = table[np.ix_(outs, ins)] <= lost
            chosen = [
                tucker(layer, ins[j], outs[i]) for i, j in zip(*np.nonzero(kept), strict=True)
            ]
        if chosen:
            least = min(chosen, key=lambda candidate: chain_cost(layer, candidate).macs)
            _choose(selection, name, layer, least)
    return selection


@dataclass(frozen=True)
class Found:
    """A selection whose measured time ratio is the closest to the target, and at which share."""

    selection: Selection
    share: float
    ratio: float
    reached: bool


def at_ratio(
    rule: Callable[[float], Selection], ratio_of: Callable[[Selection], float], target: float
) -> Found:
    """Bisect the rule's share until the network takes `target` of the dense time, within TOLERANCE.

    `ratio_of` measures a selection's time ratio. Time is a staircase in the ranks: where no share gives
    the target, the closest that was measured is returned, and not `reached`.
    """
    low, high = 0.0, 1.0
    best: Found | None = None
    for _ in range(STEPS):
        share = (low + high) / 2
        selection = rule(share)
        ratio = ratio_of(selection)
        reached = abs(ratio - target) <= TOLERANCE * target
        if best is None or abs(ratio - target) < abs(best.ratio - target):
            best = Found(selection, share, ratio, reached)
        if reached:
            break
        low, high = (share, high) if ratio < target else (low, share)
    assert best is not None
    return best


def _choose(
    selection: dict[str, Candidate], name: str, layer: ConvLayer, candidate: Candidate
) -> None:
    """Decompose a layer only where that leaves it less arithmetic."""
    if candidate.form != "dense" and chain_cost(layer, candidate).macs < dense_cost(layer).macs:
        selection[name] = candidate


def _channels(layer: ConvLayer) -> tuple[int, int]:
    return layer.c_in, layer.c_out


def _svd(layer: ConvLayer, rank: int) -> Candidate:
    return (
        Candidate("svd", Ranks(rank, rank)) if rank < min(_channels(layer)) else Candidate("dense")
    )


def _rounded(rank: float, channels: int) -> int:
    return next(offered for offered in _grid(channels) if offered >= rank)


def _grid(channels: int) -> list[int]:
    step = FINE_STEP if channels <= SMALL_CHANNELS else STEP
    return [*range(step, channels, step), channels]
