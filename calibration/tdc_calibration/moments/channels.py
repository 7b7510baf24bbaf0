"""Second moments by channel, averaged over the kernel's positions, for patches that are too large."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.moments.accumulator import Array
from tdc_calibration.moments.pixels import Pixels
from tdc_deploy.types import ConvLayer


class Channels:
    """A pixel counts as often as patches hold it. So the moment is that of pixels, each times the root of
    how often: a 1x1 kernel's.
    """

    by_channel = True

    def __init__(self, layer: ConvLayer, dtype: type[np.floating] = np.float32) -> None:
        self._layer = layer
        pixels = replace(layer, kernel=(1, 1), strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0))
        self._pixels = Pixels(pixels, dtype)
        self.size = layer.c_in
        rows, columns = (_uses(layer, axis) for axis in (0, 1))
        self._weights = np.sqrt(np.outer(rows, columns)).astype(dtype)

    @property
    def macs(self) -> int:
        """Multiplications for one image."""
        return self._pixels.macs

    @property
    def bytes(self) -> int:
        """Memory that it takes, with its result."""
        return self._pixels.bytes

    def add(self, x: NDArray[Any]) -> None:
        """Add images [n, C, H, W]."""
        for image in x:
            self._pixels.add((image * self._weights)[None])

    def moment(self) -> Array:
        """E[x·xᵀ] of all that was added, float64, symmetric."""
        patches = math.prod((*self._layer.out_hw, *self._layer.kernel))
        moment = self._pixels.moment()
        moment *= math.prod(self._layer.in_hw) / patches
        return moment


def _uses(layer: ConvLayer, axis: int) -> NDArray[np.int64]:
    """How many pairs (kernel position, output position) use each input row (axis 0) or column (1)."""
    size = layer.in_hw[axis]
    outputs = np.arange(layer.out_hw[axis]) * layer.strides[axis] - layer.pads[axis]
    taps = np.arange(layer.kernel[axis]) * layer.dilations[axis]
    used = np.add.outer(outputs, taps).ravel()
    return np.bincount(used[(used >= 0) & (used < size)], minlength=size)
