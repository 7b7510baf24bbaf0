"""Which range of an activation 8 bits should span: calibrators, over a histogram of its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.histograms import Histogram

Calibrator = Literal["minmax", "entropy", "percentile", "mse"]
CALIBRATORS: tuple[Calibrator, ...] = get_args(Calibrator)

Range: TypeAlias = tuple[float, float]
"""The least and the largest value that is told apart; 0 lies between."""

Array = NDArray[np.float64]

# Levels of 8 bits over one sign, and over each of two.
UNSIGNED_LEVELS, SIGNED_LEVELS = 256, 128

# What each tail may lose.
PERCENTILE = 99.99

# Magnitudes, and every how many of them a threshold is tried: TensorRT's calibrator has 2048 bins.
MAGNITUDES, STRIDE = 2048, 8

# Shares of the whole range that the least squares are tried at.
SHARES = np.linspace(0.2, 1.0, 81)
ROUNDS = 2


def ranges_of(
    histograms: Mapping[str, Histogram], calibrator: Calibrator, *, symmetric: bool = False
) -> dict[str, Range]:
    """Each tensor's range; `symmetric` ones are as wide on both sides of 0."""
    chosen = _CALIBRATORS[calibrator]
    return {name: chosen(found, symmetric) for name, found in histograms.items()}


def minmax(found: Histogram, symmetric: bool) -> Range:
    """All that was seen."""
    return _both(max(-found.low, found.high)) if symmetric else (found.low, found.high)


def percentile(found: Histogram, symmetric: bool) -> Range:
    """PERCENTILE percent of the values on each side: of their magnitudes if symmetric."""
    share = PERCENTILE / 100
    if symmetric:
        counts, width = _magnitudes(found)
        return _both(width * (_quantile_bin(counts, share) + 1))
    width = (found.high - found.low) / len(found.counts)
    high = found.low + width * (_quantile_bin(found.counts, share) + 1)
    low = found.high - width * (_quantile_bin(found.counts[::-1], share) + 1)
    return min(low, 0.0), max(high, 0.0)


def mse(found: Histogram, symmetric: bool) -> Range:
    """The range whose rounding and clipping lose the least square error."""
    values, counts = found.centres, found.counts.astype(np.float64)
    if symmetric:
        most = max(-found.low, found.high)
        errors = [_square_error(values, counts, *_both(most * s), 255) for s in SHARES]
        return _both(most * float(SHARES[np.argmin(errors)]))
    low, high = found.low, found.high
    for _ in range(ROUNDS):
        highs = found.high * SHARES
        high = float(highs[np.argmin([_square_error(values, counts, low, h) for h in highs])])
        lows = found.low * SHARES
        low = float(lows[np.argmin([_square_error(values, counts, s, high) for s in lows])])
    return low, high


def entropy(found: Histogram, symmetric: bool) -> Range:
    """The threshold on magnitudes whose 8-bit distribution diverges least from the real one.

    Source: S. Migacz, 8-bit Inference with TensorRT, GTC 2017. Exact zeros, which every range holds
    exactly, do not count.
    """
    signed = symmetric or found.low < 0 < found.high
    counts, width = _magnitudes(found)
    threshold = width * _least_divergence(counts, SIGNED_LEVELS if signed else UNSIGNED_LEVELS)
    if symmetric:
        return _both(threshold)
    return max(found.low, -threshold), min(found.high, threshold)


def _both(threshold: float) -> Range:
    return -threshold, threshold


def _quantile_bin(counts: NDArray[np.int64], share: float) -> int:
    """The first bin at whose end `share` of the values are reached."""
    reached = np.cumsum(counts)
    return int(np.searchsorted(reached, share * reached[-1]))


def _magnitudes(found: Histogram) -> tuple[NDArray[np.int64], float]:
    """Counts [MAGNITUDES] of the values' magnitudes, and the width of a bin."""
    width = max(-found.low, found.high) / MAGNITUDES
    if width == 0:
        return np.eye(1, MAGNITUDES, dtype=np.int64)[0], 0.0
    where = np.minimum((np.abs(found.centres) / width).astype(np.int64), MAGNITUDES - 1)
    counts = np.bincount(where, weights=found.counts, minlength=MAGNITUDES)
    return counts.astype(np.int64), width


def _least_divergence(counts: NDArray[np.int64], levels: int) -> int:
    """The number of bins to keep."""
    counted = counts.astype(np.float64)
    counted[0] = counted[1]
    sizes = np.arange(levels, len(counted) + 1, STRIDE)
    divergences = [_divergence(counted, int(size), levels) for size in sizes]
    return int(sizes[np.argmin(divergences)]) if np.isfinite(divergences).any() else len(counted)


def _divergence(counts: Array, size: int, levels: int) -> float:
    """Of the first `size` bins, with what is beyond in the last, from the same in `levels` steps."""
    real = counts[:size].copy()
    starts = np.arange(levels) * size // levels
    held = np.add.reduceat(real, starts)
    filled = np.add.reduceat((real > 0).astype(np.float64), starts)
    level = np.repeat(
        np.divide(held, filled, out=np.zeros_like(held), where=filled > 0),
        np.diff(np.append(starts, size)),
    )
    coarse = np.where(real > 0, level, 0.0)
    real[-1] += counts[size:].sum()
    some = real > 0
    if not some.any() or not coarse[some].all():
        return np.inf
    p, q = real[some] / real.sum(), coarse[some] / coarse.sum()
    return float((p * np.log(p / q)).sum())


def _square_error(values: Array, counts: Array, low: float, high: float, steps: int = 255) -> float:
    """Σ counts · (value − its nearest of steps + 1 levels over [low, high])²."""
    scale = (high - low) / steps
    if scale <= 0:
        return float((counts * values**2).sum())
    zero = np.rint(-low / scale)
    level = np.clip(np.rint(values / scale) + zero, 0, steps)
    return float((counts * (values - (level - zero) * scale) ** 2).sum())


_CALIBRATORS: dict[Calibrator, Callable[[Histogram, bool], Range]] = {
    "minmax": minmax,
    "entropy": entropy,
    "percentile": percentile,
    "mse": mse,
}
