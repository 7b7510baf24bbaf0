"""The forms and ranks worth measuring for a layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.profiling.bounds import Roofline
from tdc_deploy.tucker import Bases, chain_cost, dense_cost, svd_errors, tucker2_errors
from tdc_deploy.types import Candidate, ConvLayer, Ranks

# CPU kernels work on blocks of 16 channels: time is a staircase in the rank with steps of 16.
STEP = 16
SMALL_RANKS = (4, 8, 12)
SMALL_CHANNELS = 32

# The step of the paper's rank tables.
TDC_STEP = 32

# Steps widen with the rank: (up to this rank, step).
GRID = ((128, STEP), (256, 2 * STEP), (1 << 30, 4 * STEP))

# A chain with nearly the layer's arithmetic is slower: it writes two more tensors.
MAX_MACS = 0.85

# A candidate is dropped if another has no more error and at most this share of its arithmetic: time
# does not follow arithmetic more closely than that.
DOMINANCE = 0.8
MAX_PER_LAYER = 36


def rank_grid(channels: int) -> list[int]:
    """The ranks offered for a mode of that many channels, ascending and smaller than it."""
    ranks = list(SMALL_RANKS) if channels <= SMALL_CHANNELS else []
    rank = 0
    for limit, step in GRID:
        while rank < min(limit, channels):
            rank += step
            ranks.append(rank)
    return [rank for rank in ranks if rank < channels]


def enumerate_candidates(layer: ConvLayer) -> list[Candidate]:
    """Every form at every rank of the grid with less arithmetic than the layer; dense is not listed."""
    ranks_in, ranks_out = rank_grid(layer.c_in), rank_grid(layer.c_out)
    if layer.is_pointwise:
        both = rank_grid(min(layer.c_in, layer.c_out))
        offered = [Candidate("svd", Ranks(r, r)) for r in both]
    else:
        offered = [
            Candidate("tucker2", Ranks(r_in, r_out), "fused")
            for r_in in ranks_in
            for r_out in ranks_out
        ]
        offered += [Candidate("tucker_in", Ranks(r_in, layer.c_out)) for r_in in ranks_in]
        offered += [Candidate("tucker_out", Ranks(layer.c_in, r_out)) for r_out in ranks_out]
    limit = MAX_MACS * dense_cost(layer).macs
    return [c for c in offered if chain_cost(layer, c).macs <= limit]


def enumerate_tdc_candidates(layer: ConvLayer) -> list[Candidate]:
    """Every Tucker-2 candidate of the paper's grid: ranks in steps of 32, finer in narrow layers."""
    if layer.is_pointwise:
        return []
    modes = [
        rank_grid(channels)
        if channels <= 2 * TDC_STEP
        else list(range(TDC_STEP, channels, TDC_STEP))
        for channels in (layer.c_in, layer.c_out)
    ]
    offered = [
        Candidate("tucker2", Ranks(r_in, r_out), "fused") for r_in in modes[0] for r_out in modes[1]
    ]
    limit = MAX_MACS * dense_cost(layer).macs
    return [c for c in offered if chain_cost(layer, c).macs <= limit]


def candidate_errors(
    weight: NDArray[np.floating], candidates: Sequence[Candidate], bases: Bases | None
) -> list[float]:
    """Energy lost by each candidate on a kernel [M, C, kh, kw]."""
    forms = {candidate.form for candidate in candidates}
    by_rank = svd_errors(weight) if "svd" in forms else None
    by_ranks = tucker2_errors(weight, bases) if forms - {"svd", "dense"} else None
    errors = []
    for candidate in candidates:
        ranks = candidate.ranks
        if ranks is None:
            errors.append(0.0)
        elif candidate.form == "svd":
            assert by_rank is not None
            errors.append(float(by_rank[ranks.r_in]))
        else:
            assert by_ranks is not None
            errors.append(float(by_ranks[ranks.r_out, ranks.r_in]))
    return errors


def prune(
    layer: ConvLayer,
    candidates: Sequence[Candidate],
    errors: NDArray[np.float64],
    dense_ms: float,
    roofline: Roofline,
) -> list[int]:
    """Indices of the candidates worth measuring for layers of one shape.

    `errors` [layers, candidates] holds their errors on each layer of that shape. Dropped is what the
    roofline says cannot beat the dense layer, and what another candidate dominates on every layer; of
    more than MAX_PER_LAYER, an even spread over the arithmetic is kept.
    """
    bounds = np.array([roofline.lower_bound(layer, c) for c in candidates])
    kept = [
        i
        for i in range(len(candidates))
        if bounds[i] < dense_ms and not _dominated(i, bounds, errors)
    ]
    kept.sort(key=lambda i: bounds[i])
    if len(kept) <= MAX_PER_LAYER:
        return kept
    chosen = np.linspace(0, len(kept) - 1, MAX_PER_LAYER).round().astype(int)
    return [kept[i] for i in chosen]


def _dominated(index: int, bounds: NDArray[np.float64], errors: NDArray[np.float64]) -> bool:
    cheaper = bounds <= DOMINANCE * bounds[index]
    return bool((cheaper & (errors <= errors[:, [index]]).all(0)).any())
