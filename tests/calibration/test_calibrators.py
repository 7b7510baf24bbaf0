"""Calibrators against cases that are computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tdc_calibration.calibrators import CALIBRATORS, ranges_of
from tdc_calibration.histograms import BINS, Histogram

BIN = 1 / BINS


def histogram(low: float, high: float, **at: int) -> Histogram:
    """Counts at named places: a12 is bin 12, last the last one."""
    counts = np.zeros(BINS, np.int64)
    for place, count in at.items():
        counts[BINS - 1 if place == "last" else int(place[1:])] = count
    return Histogram(low, high, counts)


def uniform(low: float, high: float) -> Histogram:
    return Histogram(low, high, np.full(BINS, 10, np.int64))


def chosen(found: Histogram, calibrator: str, symmetric: bool = False) -> tuple[float, float]:
    return ranges_of({"x": found}, calibrator, symmetric=symmetric)["x"]  # type: ignore[arg-type]


def test_min_max_is_all_that_was_seen() -> None:
    assert chosen(uniform(-1.0, 3.0), "minmax") == (-1.0, 3.0)
    assert chosen(uniform(-1.0, 3.0), "minmax", symmetric=True) == (-3.0, 3.0)


def test_the_percentile_leaves_out_what_each_tail_may_lose() -> None:
    # Of 100,000 values, the 10 beyond the 99.99th percentile lie in the last bin, the others midway.
    found = histogram(0.0, 1.0, a2047=99_990, last=10)
    low, high = chosen(found, "percentile")
    assert low == 0.0
    assert abs(high - 0.5) <= 1e-12
    # One more and the percentile lies among them.
    found = histogram(0.0, 1.0, a2047=99_989, last=11)
    assert chosen(found, "percentile") == (0.0, 1.0)


def test_the_percentile_of_both_tails() -> None:
    found = histogram(-1.0, 1.0, a0=5, a1024=49_995, a3071=49_995, last=5)
    low, high = chosen(found, "percentile")
    assert low == pytest.approx(-0.5, abs=1e-12)
    assert high == pytest.approx(0.5, abs=1e-12)
    assert chosen(found, "percentile", symmetric=True)[1] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("symmetric", [False, True])
def test_least_squares_of_a_uniform_distribution_clips_almost_nothing(symmetric: bool) -> None:
    """A clipped share c costs c³/3 of the range squared, rounding (1−c)²/(12·255²): best below
    c = 0.3%, and the shares that are tried are 1% apart.
    """
    low, high = chosen(uniform(-2.0 if symmetric else 0.0, 2.0), "mse", symmetric)
    assert high == 2.0
    assert low == (-2.0 if symmetric else 0.0)


def test_least_squares_clip_one_outlier_among_many() -> None:
    """999,999 values uniform up to a tenth and one at 1: keeping it rounds with a step of 1/255, an error
    of 1e6·(1/255)²/12 = 1.28; clipping at 0.2 costs (1 − 0.2)² = 0.64 and 1e6·(0.2/255)²/12 = 0.05.
    """
    counts = np.zeros(BINS, np.int64)
    counts[: BINS // 10] = 999_999 // (BINS // 10)
    counts[-1] = 1
    low, high = chosen(Histogram(0.0, 1.0, counts), "mse")
    assert low == 0.0
    # 0.69 in all at 0.2, which is the least share that is tried; at 0.3: 0.49 + 0.115 = 0.61; at 0.4: 0.56.
    best = min(np.linspace(0.2, 1, 81), key=lambda t: (1 - t) ** 2 + 1e6 * (t / 255) ** 2 / 12)
    assert abs(high - best) <= 0.02  # bins' middles in place of values


def test_entropy_keeps_all_of_a_uniform_distribution() -> None:
    """Any threshold below the end piles the rest up in the last bin; at the end nothing diverges."""
    assert chosen(uniform(0.0, 1.0), "entropy") == (0.0, 1.0)


def test_entropy_cuts_a_far_tail() -> None:
    """A bell up to a quarter and a handful of outliers at 1: TensorRT's algorithm gives those up."""
    centres = (np.arange(BINS) + 0.5) * BIN
    counts = (1e5 * np.exp(-0.5 * (centres / 0.07) ** 2)).astype(np.int64)
    counts[-1] += 5
    low, high = chosen(Histogram(0.0, 1.0, counts), "entropy")
    assert low == 0.0
    assert 0.2 <= high <= 0.5
    symmetric = chosen(Histogram(0.0, 1.0, counts), "entropy", symmetric=True)
    assert symmetric[0] == -symmetric[1]


def test_exact_zeros_do_not_decide_about_entropy() -> None:
    """Half of a ReLU's outputs are 0, which every range holds."""
    centres = (np.arange(BINS) + 0.5) * BIN
    counts = (1e5 * np.exp(-0.5 * (centres / 0.07) ** 2)).astype(np.int64)
    counts[-1] += 5
    spiked = counts.copy()
    spiked[0] += 10**9
    plain = chosen(Histogram(0.0, 1.0, counts), "entropy")
    assert chosen(Histogram(0.0, 1.0, spiked), "entropy") == plain
    assert plain[1] < 1.0


@pytest.mark.parametrize("calibrator", CALIBRATORS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_constant_zero_has_no_range(calibrator: str, symmetric: bool) -> None:
    low, high = chosen(histogram(0.0, 0.0, a0=100), calibrator, symmetric)
    assert low == 0.0
    assert high == 0.0


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_a_range_holds_zero_and_no_more_than_was_seen(calibrator: str) -> None:
    rng = np.random.default_rng(0)
    for low, high in ((-1.0, 3.0), (0.0, 2.0), (-5.0, 0.0)):
        counts = rng.integers(0, 50, BINS)
        found = chosen(Histogram(low, high, counts), calibrator)
        assert low - 1e-9 <= found[0] <= 0 <= found[1] <= high + 1e-9
        wide = chosen(Histogram(low, high, counts), calibrator, symmetric=True)
        assert wide[0] == -wide[1]
        assert wide[1] <= max(-low, high) + 1e-9
