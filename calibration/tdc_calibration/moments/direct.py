"""Second moments from the patches themselves: for any kernel, stride, dilation and padding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.moments.accumulator import POSITIONS, Array
from tdc_calibration.moments.collector import Collector
from tdc_deploy.types import ConvLayer

Phases = Mapping[tuple[int, int], NDArray[Any]]


class Direct:
    """Unfolds patches into a buffer [C·kh·kw, positions], and multiplies it with its transpose when it is
    full.

    Strides go through phases: pixels whose row and column leave the same rest when divided by the strides.
    What one kernel position sees is a rectangle of one phase, whose rows are copied as a whole.
    """

    by_channel = False

    def __init__(self, layer: ConvLayer, dtype: type[np.floating] = np.float32) -> None:
        self._layer = layer
        self._dtype = np.dtype(dtype)
        self.size = layer.c_in * math.prod(layer.kernel)
        self._capacity = layer.out_hw[1] * max(1, POSITIONS // layer.out_hw[1])  # whole rows
        self._padded: NDArray[Any] | None = None
        self._collected: Collector | None = None

    @property
    def macs(self) -> int:
        """Multiplications for one image."""
        return self.size * (self.size + 1) // 2 * math.prod(self._layer.out_hw)

    @property
    def bytes(self) -> int:
        """Memory of an image, the buffer and the sums."""
        image = self._layer.c_in * math.prod(self._padded_hw) * self._dtype.itemsize
        return image + Collector.bytes(self.size, self._capacity, self._dtype)

    def add(self, x: NDArray[Any]) -> None:
        """Add images [n, C, H, W]."""
        if self._collected is None:
            self._collected = Collector(self.size, self._capacity, self._dtype)
            self._padded = np.zeros((self._layer.c_in, *self._padded_hw), self._dtype)
        height, width = self._layer.out_hw
        for image in x:
            phases = self._phases(image)
            start = 0
            while start < height:
                rows = min(height - start, self._collected.room // width)
                self._unfold(self._collected.take(rows * width), phases, start, rows)
                start += rows

    def moment(self) -> Array:
        """E[x·xᵀ] of all that was added, float64, symmetric."""
        assert self._collected is not None
        collected, self._collected, self._padded = self._collected, None, None
        return collected.mean()

    @property
    def _padded_hw(self) -> tuple[int, int]:
        layer = self._layer
        top, left, bottom, right = layer.pads
        return layer.in_hw[0] + top + bottom, layer.in_hw[1] + left + right

    def _phases(self, image: NDArray[Any]) -> Phases:
        """By the rests of row and column, [C, rows, columns] of the padded image."""
        assert self._padded is not None
        layer = self._layer
        top, left = layer.pads[:2]
        self._padded[:, top : top + layer.in_hw[0], left : left + layer.in_hw[1]] = image
        (down, right), padded = layer.strides, self._padded
        return {
            (i, j): np.ascontiguousarray(padded[:, i::down, j::right])
            for i, j in itertools.product(range(down), range(right))
        }

    def _unfold(self, place: NDArray[Any], phases: Phases, start: int, rows: int) -> None:
        """Write the patches of some rows of an image."""
        layer = self._layer
        width = layer.out_hw[1]
        place = place.reshape(layer.c_in, *layer.kernel, rows, width)
        for a, b in itertools.product(*map(range, layer.kernel)):
            row, i = divmod(a * layer.dilations[0], layer.strides[0])
            column, j = divmod(b * layer.dilations[1], layer.strides[1])
            row += start
            place[:, a, b] = phases[i, j][:, row : row + rows, column : column + width]
