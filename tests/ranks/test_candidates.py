"""Which forms and ranks are offered, and which of them are worth measuring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdc_deploy.profiling.bounds import HEADROOM, Roofline
from tdc_deploy.ranks.candidates import (
    DOMINANCE,
    MAX_MACS,
    MAX_PER_LAYER,
    candidate_errors,
    enumerate_candidates,
    prune,
    rank_grid,
)
from tdc_deploy.tucker import chain_cost, decompose, dense_cost, mode_bases, reconstruct
from tdc_deploy.types import DENSE, Candidate, Ranks
from tests.helpers import Array, decaying, fixed, relative
from tests.ranks.tables import conv_layer


@pytest.mark.parametrize(
    ("channels", "ranks"),
    [
        (1, []),
        (4, []),
        (5, [4]),
        (16, [4, 8, 12]),
        (17, [4, 8, 12, 16]),
        (32, [4, 8, 12, 16]),
        (33, [16, 32]),
        (64, [16, 32, 48]),
        (128, [16, 32, 48, 64, 80, 96, 112]),
        (256, [16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224]),
    ],
)
def test_grid(channels: int, ranks: list[int]) -> None:
    assert rank_grid(channels) == ranks


@given(channels=st.integers(1, 4096))
@fixed(100)
def test_grid_of_any_layer(channels: int) -> None:
    grid = rank_grid(channels)
    assert grid == sorted(set(grid))
    assert all(0 < rank < channels for rank in grid)
    assert len(grid) <= 8 + 4 + channels // 64
    if channels > 32:
        assert all(rank % 16 == 0 for rank in grid)


def test_forms_of_a_spatial_kernel() -> None:
    layer = conv_layer(c_in=64, c_out=128)
    offered = enumerate_candidates(layer)
    assert {c.form for c in offered} == {"tucker2", "tucker_in", "tucker_out"}
    assert len(set(offered)) == len(offered)
    for c in offered:
        assert c.ranks is not None and c.error == 0 and c.latency_ms is None
        assert c.ranks.r_in <= 64 and c.ranks.r_out <= 128
        assert (c.ranks.r_in < 64) == (c.form in ("tucker2", "tucker_in"))
        assert (c.ranks.r_out < 128) == (c.form in ("tucker2", "tucker_out"))
        assert (c.implementation == "fused") == (c.form == "tucker2")
        assert chain_cost(layer, c).macs <= MAX_MACS * dense_cost(layer).macs


def test_every_pair_that_is_cheaper_is_offered() -> None:
    layer = conv_layer(c_in=64, c_out=64)
    pairs = {(c.ranks.r_in, c.ranks.r_out) for c in enumerate_candidates(layer) if c.ranks}
    assert {(a, b) for a in (16, 32, 48) for b in (16, 32, 48)} <= pairs


def test_forms_of_a_pointwise_kernel() -> None:
    layer = conv_layer(c_in=64, c_out=256, size=1)
    offered = enumerate_candidates(layer)
    assert [(c.form, c.ranks) for c in offered] == [
        ("svd", Ranks(16, 16)),
        ("svd", Ranks(32, 32)),
    ]  # 48·(64 + 256) is 94% of 64·256


def test_nothing_to_offer() -> None:
    assert enumerate_candidates(conv_layer(c_in=3, c_out=4, size=1)) == []
    assert all(c.form == "tucker_out" for c in enumerate_candidates(conv_layer(c_in=3, c_out=64)))


def test_errors_of_each_form() -> None:
    rng = np.random.default_rng(0)
    layer = conv_layer(c_in=20, c_out=24)
    weight = decaying(rng, 24, 20, 3, 3)
    candidates = enumerate_candidates(layer)
    assert {c.form for c in candidates} == {"tucker2", "tucker_in", "tucker_out"}
    errors = candidate_errors(weight, candidates, None)
    assert errors == candidate_errors(weight, candidates, mode_bases(weight))
    for candidate, error in zip(candidates, errors, strict=True):
        assert candidate.ranks is not None
        direct = relative(reconstruct(decompose(weight, candidate.form, candidate.ranks)), weight)
        assert abs(error - direct**2) <= 1e-12  # float64 sums
    assert candidate_errors(weight, [DENSE], None) == [0.0]


def test_errors_of_a_pointwise_kernel() -> None:
    weight = decaying(np.random.default_rng(1), 48, 40, 1, 1)
    candidates = [Candidate("svd", Ranks(r, r)) for r in (16, 32)]
    errors = candidate_errors(weight, candidates, None)
    for candidate, error in zip(candidates, errors, strict=True):
        assert candidate.ranks is not None
        direct = relative(reconstruct(decompose(weight, "svd", candidate.ranks)), weight) ** 2
        assert abs(error - direct) <= 1e-12  # float64 sums
    assert candidate_errors(weight, [DENSE], None) == [0.0]


LAYER = conv_layer(c_in=128, c_out=128)
OFFERED = enumerate_candidates(LAYER)
FAST = Roofline(dense_cost(LAYER).macs)  # the dense layer takes 1 ms at least


def errors_on(*seeds: int) -> Array:
    weights = [decaying(np.random.default_rng(seed), 128, 128, 3, 3) for seed in seeds]
    return np.array([candidate_errors(weight, OFFERED, None) for weight in weights])


def test_pruning_keeps_no_more_than_it_may() -> None:
    kept = prune(LAYER, OFFERED, errors_on(0), 1.0, FAST)
    assert 0 < len(kept) <= MAX_PER_LAYER
    assert len(set(kept)) == len(kept)
    bounds = [FAST.lower_bound(LAYER, OFFERED[i]) for i in kept]
    assert bounds == sorted(bounds)


def test_pruning_keeps_the_ends() -> None:
    """Of what is not dominated, the least and the most arithmetic are always measured."""
    errors = errors_on(0)
    macs = np.array([chain_cost(LAYER, c).macs for c in OFFERED])
    free = [i for i in range(len(OFFERED)) if not dominated(i, macs, errors)]
    assert len(free) > MAX_PER_LAYER
    kept = prune(LAYER, OFFERED, errors, 1.0, FAST)
    assert set(kept) <= set(free)
    assert macs[kept[0]] == macs.min()
    assert macs[kept[-1]] == macs[free].max()


def dominated(index: int, macs: Array, errors: Array) -> bool:
    """Another has no more error on any layer and at most DOMINANCE of the arithmetic."""
    return any(
        macs[other] <= DOMINANCE * macs[index]
        and bool((errors[:, other] <= errors[:, index]).all())
        for other in range(len(macs))
    )


def test_what_is_pruned_is_dominated_or_spread_out() -> None:
    errors = errors_on(0, 1)
    few = list(range(0, len(OFFERED), 4))
    candidates, some = [OFFERED[i] for i in few], errors[:, few]
    kept = prune(LAYER, candidates, some, 1.0, FAST)
    assert len(kept) < MAX_PER_LAYER
    macs = np.array([chain_cost(LAYER, c).macs for c in candidates])
    for i in range(len(candidates)):
        assert (i in kept) != dominated(i, macs, some)
    assert len(kept) < len(candidates)


def test_what_helps_one_layer_is_kept_for_all() -> None:
    """Layers of one shape are measured once: dominated on one of them is not enough."""
    candidates = [Candidate("tucker2", Ranks(r, r)) for r in (32, 64)]
    assert prune(LAYER, candidates, np.array([[0.1, 0.2]]), 1.0, FAST) == [0]
    assert prune(LAYER, candidates, np.array([[0.1, 0.2], [0.3, 0.2]]), 1.0, FAST) == [0, 1]


def test_what_cannot_be_faster_is_pruned() -> None:
    """The roofline's bound for a candidate is already the dense layer's time."""
    errors = errors_on(0)
    assert prune(LAYER, OFFERED, errors, 1e-6, FAST) == []
    dense_ms = 0.3
    for i in prune(LAYER, OFFERED, errors, dense_ms, FAST):
        assert FAST.lower_bound(LAYER, OFFERED[i]) < dense_ms


def test_roofline_is_the_best_rate_with_headroom() -> None:
    small, large = conv_layer(c_in=16, c_out=16), LAYER
    macs = [dense_cost(layer).macs for layer in (small, large)]
    roofline = Roofline.from_dense([(small, 0.5), (large, 2.0)])
    assert roofline.macs_per_ms == pytest.approx(HEADROOM * max(macs[0] / 0.5, macs[1] / 2.0))
    half = replace(LAYER, in_hw=(7, 14))
    assert roofline.lower_bound(half, DENSE) * 2 == pytest.approx(
        roofline.lower_bound(LAYER, DENSE)
    )
