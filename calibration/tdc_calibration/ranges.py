"""Ranges and histograms of tensors, in one pass over the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError

# Once there are two different values, at least half of the bins lie between the least and the largest.
BINS = 4096

# Values of one sample that are counted in a histogram, spread evenly over it. For the ranges, all count.
SPREAD = 2**12

# The narrowest bins, as a power of two: of the smallest normal float32, and of the largest value so far.
NARROWEST = -126
PRECISION = -24


@dataclass(frozen=True, eq=False)
class TensorRange:
    """What values a tensor takes.

    lowest, highest [C]: by channel (axis 1; one entry for a tensor without), over all values. counts
    [bins]: how many of the counted values lie in each bin, which are `width` wide and start at `start`, a
    multiple of `width`; so zero is a boundary.
    """

    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]
    counts: NDArray[np.int64]
    start: float
    width: float

    @property
    def minimum(self) -> float:
        """The least value of all."""
        return float(self.lowest.min())

    @property
    def maximum(self) -> float:
        """The largest value of all."""
        return float(self.highest.max())

    @property
    def edges(self) -> NDArray[np.float64]:
        """The bins' boundaries [bins + 1], as of numpy.histogram."""
        numbers = np.arange(len(self.counts) + 1, dtype=np.float64)
        return np.asarray(self.start + self.width * numbers, np.float64)


class RangeOf:
    """Ranges of a tensor over batches, and a histogram whose bins grow with them.

    A bin's width is a power of two, and bins start at multiples of it. Values outside of the bins double
    the width until they fit, which joins bins two by two: no count is ever split or guessed, and the
    result is the histogram of all counted values at the final width.
    """

    bytes = 8 * BINS

    def __init__(self, name: str) -> None:
        self._name = name
        self._lowest: NDArray[np.float32] | None = None
        self._highest: NDArray[np.float32] | None = None
        self._exponent = NARROWEST
        # The first bin's number: bin i reaches from i · 2^exponent to (i + 1) · 2^exponent.
        self._first = 0
        self._counts = np.zeros(BINS, np.int64)

    def add(self, x: NDArray[Any]) -> None:
        """Add values [n, C, …].

        Raises:
            TdcError: one is not finite.
        """
        if not x.size:
            return
        values = x.astype(np.float32, copy=False)
        by_channel = values.reshape(*(values.shape[:2] if values.ndim > 1 else (1, 1)), -1)
        lowest, highest = by_channel.min((0, 2)), by_channel.max((0, 2))
        if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
            raise TdcError(
                f"tensor {self._name!r} holds NaN or infinity on these samples",
                expected="finite activations",
                fix="check the samples' preprocessing, and the model's weights",
            )
        if self._lowest is not None and self._highest is not None:
            lowest = np.minimum(self._lowest, lowest)
            highest = np.maximum(self._highest, highest)
        self._lowest, self._highest = lowest, highest
        self._grow(float(lowest.min()), float(highest.max()))
        per_bin = math.ldexp(1.0, -self._exponent)
        for sample in values.reshape(len(values) if values.ndim > 1 else 1, -1):
            step = -(-len(sample) // SPREAD)
            numbers = sample[::step].astype(np.float64)
            numbers *= per_bin  # exact: a power of two
            bins = np.floor(numbers, out=numbers).astype(np.int64) - self._first
            self._counts += np.bincount(bins, minlength=BINS)

    def result(self) -> TensorRange | None:
        """The ranges of all that was added; None if no value was."""
        if self._lowest is None or self._highest is None:
            return None
        used = np.flatnonzero(self._counts)
        first, last = int(used[0]), int(used[-1])
        return TensorRange(
            self._lowest,
            self._highest,
            self._counts[first : last + 1].copy(),
            math.ldexp(self._first + first, self._exponent),
            math.ldexp(1.0, self._exponent),
        )

    def _grow(self, lowest: float, highest: float) -> None:
        """Let the bins hold everything from `lowest` to `highest`."""
        last = self._first + BINS - 1
        numbers = [self._number(value, self._exponent) for value in (lowest, highest)]
        if self._first <= numbers[0] and numbers[1] <= last:
            return
        largest = math.frexp(max(abs(lowest), abs(highest)))[1]
        exponent = max(self._exponent, largest + PRECISION)
        while self._number(highest, exponent) - self._number(lowest, exponent) >= BINS:
            exponent += 1
        counts, first = self._counts, self._first
        for _ in range(exponent - self._exponent):
            counts, first = _joined(counts, first)
        start = self._number(lowest, exponent)
        moved = np.zeros(BINS, np.int64)
        used = np.flatnonzero(counts)
        moved[used + first - start] = counts[used]
        self._counts, self._first, self._exponent = moved, start, exponent

    @staticmethod
    def _number(value: float, exponent: int) -> int:
        return math.floor(math.ldexp(value, -exponent))


def _joined(counts: NDArray[np.int64], first: int) -> tuple[NDArray[np.int64], int]:
    """The counts in bins of twice the width, and the first one's number."""
    odd = first % 2
    padded = np.pad(counts, (odd, (odd + len(counts)) % 2))
    return padded.reshape(-1, 2).sum(1), (first - odd) // 2
