"""Second moments of pixels: what 1x1 kernels see without padding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.moments.accumulator import POSITIONS, Array
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
        self._buffer: NDArray[Any] | None = None
        self._products: Products | None = None
        self._filled = 0

    @property
    def macs(self) -> int:
        """Multiplications for one image."""
        return self.size * (self.size + 1) // 2 * self._pixels

    @property
    def bytes(self) -> int:
        """Memory of the buffer and the sums."""
        buffer = self.size * self._images * self._pixels * self._dtype.itemsize
        return buffer + Products.bytes(self.size, self._dtype)

    def add(self, x: NDArray[Any]) -> None:
        """Add images [n, C, H, W]."""
        if self._products is None:
            self._products = Products(self.size, self._dtype)
        down, right = self._layer.strides
        for image in x[:, :, ::down, ::right]:
            if self._images == 1:
                pixels = image.reshape(self.size, -1).astype(self._dtype, copy=False)
                for part in np.array_split(pixels, -(-self._pixels // (2 * POSITIONS)), axis=1):
                    self._products.add(part)
            else:
                self._collect(image)

    def moment(self) -> Array:
        """E[x·xᵀ] of all that was added, float64, symmetric."""
        self._flush()
        assert self._products is not None
        products, self._products, self._buffer = self._products, None, None
        return products.mean()

    def _collect(self, image: NDArray[Any]) -> None:
        if self._buffer is None:
            self._buffer = np.empty((self.size, self._images * self._pixels), self._dtype)
        end = self._filled + self._pixels
        self._buffer[:, self._filled : end].reshape(image.shape)[:] = image
        self._filled = end
        if end == self._buffer.shape[1]:
            self._flush()

    def _flush(self) -> None:
        if self._filled:
            assert self._buffer is not None
            assert self._products is not None
            self._products.add(self._buffer[:, : self._filled])
            self._filled = 0
