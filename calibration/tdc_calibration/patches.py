"""The input patches that a convolution's kernel is multiplied with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.types import ConvLayer

# Elements of patches at a time, of an image at least.
CHUNK = 2**24


def patch_rows(x: NDArray[np.floating], layer: ConvLayer) -> Iterator[NDArray[Any]]:
    """An input [n, C, H, W] as rows [k·outputs, C·kh·kw] in its own type, some images at a time, the
    padding's zeros included.
    """
    top, left, bottom, right = layer.pads
    (kh, kw), (dh, dw), (sh, sw) = layer.kernel, layer.dilations, layer.strides
    span = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
    elements = layer.c_in * kh * kw
    at_once = max(1, CHUNK // (elements * math.prod(layer.out_hw)))
    for start in range(0, len(x), at_once):
        part = x[start : start + at_once]
        padded = np.pad(part, ((0, 0), (0, 0), (top, bottom), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, span, (2, 3))
        windows = windows[:, :, ::sh, ::sw, ::dh, ::dw]
        yield windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, elements)
