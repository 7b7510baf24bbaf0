"""Sums of x·xᵀ: products of float32, added up in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import get_blas_funcs

from tdc_calibration.moments.accumulator import POSITIONS, Array, mirror

# Columns at a time, so that the upper triangle, which BLAS leaves alone, is not added up.
COLUMNS = 512


class Products:
    """The sum of x·xᵀ over all positions x that were added: half the products (BLAS's syrk)."""

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        # Column-major, as BLAS wants it; their lower triangles count. The partial sum is kept: its memory
        # would be cleared by the system each time that it were asked for again.
        self._sum: Array = np.zeros((size, size), order="F")
        self._part = np.zeros((size, size), dtype, order="F")
        self._syrk = get_blas_funcs("syrk", (self._part,))
        self._held = self._count = 0

    @staticmethod
    def bytes(size: int, dtype: np.dtype[Any]) -> int:
        """Memory that it takes."""
        return (8 + dtype.itemsize) * size**2

    def add(self, x: NDArray[Any]) -> None:
        """Add positions [size, positions], row-major."""
        held = x.shape[1]
        if self._held + held > POSITIONS:
            self._settle()
        # BLAS leaves out what is held if that counts zero times.
        self._syrk(
            1.0, x.T, beta=float(self._held > 0), c=self._part, trans=1, lower=1, overwrite_c=1
        )
        self._held += held

    def mean(self) -> Array:
        """E[x·xᵀ], float64, symmetric, in the memory of the sum."""
        self._settle()
        self._sum /= self._count
        mirror(self._sum)
        return np.asarray(self._sum.T)  # symmetric, and so row-major

    def _settle(self) -> None:
        if not self._held:
            return
        for start in range(0, len(self._sum), COLUMNS):
            some = slice(start, start + COLUMNS)
            self._sum[start:, some] += self._part[start:, some]
        self._count += self._held
        self._held = 0
