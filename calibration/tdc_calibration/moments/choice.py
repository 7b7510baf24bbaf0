"""Which way of measuring a layer's second moment takes the least work."""

from __future__ import annotations

import math

import numpy as np

from tdc_calibration.moments.accumulator import Accumulator
from tdc_calibration.moments.channels import Channels
from tdc_calibration.moments.direct import Direct
from tdc_calibration.moments.pixels import Pixels
from tdc_calibration.moments.shifts import Shifts
from tdc_deploy.types import ConvLayer

# Patches with more elements than this are looked at by channel only: 4608 (512 channels, 3x3) makes a
# matrix of 170 MB in float64.
MAX_PATCH = 4608


def accumulator_of(
    layer: ConvLayer, max_patch: int = MAX_PATCH, dtype: type[np.floating] = np.float32
) -> Accumulator:
    """What sums the second moment of an ungrouped convolution's input patches; products are of `dtype`."""
    if layer.c_in * math.prod(layer.kernel) > max_patch:
        return Channels(layer, dtype)
    if layer.is_pointwise and not any(layer.pads):
        return Pixels(layer, dtype)
    ways: list[Accumulator] = [Direct(layer, dtype)]
    if layer.strides == (1, 1) and not layer.is_pointwise:
        ways.append(Shifts(layer, dtype))
    return min(ways, key=lambda way: way.macs)
