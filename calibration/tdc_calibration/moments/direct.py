"""Second moments from the patches themselves: for any kernel, stride, dilation and padding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.linalg import get_blas_funcs

from tdc_calibration.moments.accumulator import POSITIONS, Array, mirror
from tdc_deploy.types import ConvLayer


class Direct:
    """Unfolds patches into a buffer [C·kh·kw, positions], and multiplies it with its transpose when it is
    full: half the products (BLAS's syrk).
    """

    by_channel = False

    def __init__(self, layer: ConvLayer, dtype: type[np.floating] = np.float32) -> None:
        self._layer = layer
        self._dtype = np.dtype(dtype)
        self.size = layer.c_in * layer.kernel[0] * layer.kernel[1]
        plain = layer.strides == (1, 1) and not any(layer.pads)
        self._is_image = layer.is_pointwise and plain  # patches are the image's pixels
        self._capacity = layer.out_hw[1] * max(1, POSITIONS // layer.out_hw[1])  # whole rows
        self._buffer: NDArray[Any] | None = None
        self._sum: Array | None = None
        self._filled = self._count = 0

    @property
    def macs(self) -> int:
        """Multiplications for one image."""
        return self.size * (self.size + 1) // 2 * math.prod(self._layer.out_hw)

    @property
    def bytes(self) -> int:
        """Memory of the buffer and the sum."""
        return self.size * (self._capacity * self._dtype.itemsize + 8 * self.size)

    def add(self, x: NDArray[Any]) -> None:
        """Add images [n, C, H, W]."""
        if self._buffer is None:
            self._buffer = np.empty((self.size, self._capacity), self._dtype)
            # Column-major, as BLAS wants it.
            self._sum = np.zeros((self.size, self.size), order="F")
        height, width = self._layer.out_hw
        for image in x:
            if self._is_image and self._filled == 0 and height * width >= self._capacity:
                self._add_rows(image.reshape(self.size, -1).astype(self._dtype, copy=False))
                continue
            patches = self._patches(image)
            start = 0
            while start < height:
                rows = min(height - start, (self._capacity - self._filled) // width)
                self._place(patches[..., start : start + rows, :])
                start += rows
                if self._filled == self._capacity:
                    self._flush()

    def moment(self) -> Array:
        """E[x·xᵀ] of all that was added, float64, symmetric."""
        self._flush()
        assert self._sum is not None
        total, self._sum, self._buffer = self._sum, None, None
        total /= self._count
        mirror(total)
        return np.asarray(total.T)  # symmetric, and so row-major

    def _place(self, rows: NDArray[Any]) -> None:
        assert self._buffer is not None
        end = self._filled + math.prod(rows.shape[-2:])
        self._buffer[:, self._filled : end].reshape(rows.shape)[:] = rows
        self._filled = end

    def _patches(self, image: NDArray[Any]) -> NDArray[Any]:
        """A view [C, kh, kw, height, width] of an image's patches, zeros around it included."""
        layer = self._layer
        top, left, bottom, right = layer.pads
        if any(layer.pads):
            image = np.pad(image, ((0, 0), (top, bottom), (left, right)))
        spans = [d * (k - 1) + 1 for d, k in zip(layer.dilations, layer.kernel, strict=True)]
        windows = sliding_window_view(image, spans, axis=(1, 2))
        steps = (*layer.strides, *layer.dilations)
        rows, columns, down, right_step = (slice(None, None, step) for step in steps)
        return np.asarray(windows[:, rows, columns, down, right_step].transpose(0, 3, 4, 1, 2))

    def _flush(self) -> None:
        if not self._filled:
            return
        assert self._buffer is not None
        assert self._sum is not None
        self._add_rows(self._buffer[:, : self._filled])
        self._filled = 0

    def _add_rows(self, rows: NDArray[Any]) -> None:
        """Add patches [C·kh·kw, positions]."""
        syrk = get_blas_funcs("syrk", (rows,))
        self._sum += syrk(1.0, rows.T, trans=1, lower=1)
        self._count += rows.shape[1]
