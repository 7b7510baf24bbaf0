"""Second moments of pixels: what 1x1 kernels see without padding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.moments.accumulator import POSITIONS, Array
from tdc_calibration.moments.collector import Collector
from tdc_calibration.moments.products import Products
from tdc_deploy.types import ConvLayer


class Pixels:
    """Multiplies the pixels of an image where they lie if their products are no larger than they are; else
    collects some thousand in a buffer [C, positions].
    """

    by_channel = False

    def __init__(self, layer: ConvLayer, dtype: type[np.floating] = np.float32) -> None:
        self._layer = layer
        self._pixels = math.prod(layer.out_hw)
        self._dtype = np.dtype(dtype)
        self.size = layer.c_in
        collected = self.size > self._pixels
        self._images = max(1, POSITIONS // self._pixels) if collected else 1
        self._sums: Collector | Products | None = None

    @property
    def macs(self) -> int:
        """Multiplications for one image."""
        return self.size * (self.size + 1) // 2 * self._pixels

    @property
    def bytes(self) -> int:
        """Memory of the buffer and the sums."""
        return Collector.bytes(self.size, self._images * self._pixels, self._dtype)

    def add(self, x: NDArray[Any]) -> None:
        """Add images [n, C, H, W]."""
        if self._sums is None:
            self._sums = self._begun()
        down, right = self._layer.strides
        for image in x[:, :, ::down, ::right]:
            if isinstance(self._sums, Collector):
                self._sums.take(self._pixels).reshape(image.shape)[:] = image
            else:
                pixels = image.reshape(self.size, -1).astype(self._dtype, copy=False)
                for part in np.array_split(pixels, -(-self._pixels // (2 * POSITIONS)), axis=1):
                    self._sums.add(part)

    def moment(self) -> Array:
        """E[x·xᵀ] of all that was added, float64, symmetric."""
        assert self._sums is not None
        sums, self._sums = self._sums, None
        return sums.mean()

    def _begun(self) -> Collector | Products:
        if self._images == 1:
            return Products(self.size, self._dtype)
        return Collector(self.size, self._images * self._pixels, self._dtype)
