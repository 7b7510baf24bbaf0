"""Positions that are collected before they are multiplied."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.moments.accumulator import Array
from tdc_calibration.moments.products import Products


class Collector:
    """A buffer of positions [size, capacity], which goes to `Products` whenever it is full."""

    def __init__(self, size: int, capacity: int, dtype: np.dtype[Any]) -> None:
        self._capacity = capacity
        self._buffer = np.empty((size, capacity), dtype)
        self._products = Products(size, dtype)
        self._filled = 0

    @staticmethod
    def bytes(size: int, capacity: int, dtype: np.dtype[Any]) -> int:
        """Memory that it takes."""
        return size * capacity * dtype.itemsize + Products.bytes(size, dtype)

    @property
    def room(self) -> int:
        """How many positions may be taken at once."""
        return self._capacity - self._filled or self._capacity

    def take(self, count: int) -> NDArray[Any]:
        """The next positions [size, count], to be written; a full buffer is multiplied first."""
        if self._filled == self._capacity:
            self._flush()
        start, self._filled = self._filled, self._filled + count
        return self._buffer[:, start : self._filled]

    def mean(self) -> Array:
        """E[x·xᵀ] of all that was written, float64, symmetric."""
        self._flush()
        return self._products.mean()

    def _flush(self) -> None:
        if self._filled:
            self._products.add(self._buffer[:, : self._filled])
            self._filled = 0
