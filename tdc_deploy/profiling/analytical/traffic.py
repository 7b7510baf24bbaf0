"""Bytes that must come from or go to DRAM once, whatever the kernel."""

from __future__ import annotations

from tdc_deploy.profiling.analytical.launches import ELEMENT_BYTES, VECTOR_BYTES, ceil_div
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.analytical.tactics import Arithmetic


def pitch(channels: int, arithmetic: Arithmetic) -> int:
    """Channels that a pixel takes in memory: fp16 is padded to whole vectors (kHWC8)."""
    if arithmetic != "f16":
        return channels
    vector = VECTOR_BYTES // ELEMENT_BYTES[arithmetic]
    return ceil_div(channels, vector) * vector


def reduce_bytes(shape: TuckerShape, arithmetic: Arithmetic) -> int:
    """X and the first weights."""
    elements = shape.in_pixels * pitch(shape.c, arithmetic) + (shape.c + 1) * shape.r_in
    return elements * ELEMENT_BYTES[arithmetic]


def core_bytes(shape: TuckerShape, arithmetic: Arithmetic) -> int:
    """The core's weights."""
    return (shape.taps * shape.r_in + 1) * shape.r_out * ELEMENT_BYTES[arithmetic]


def expand_bytes(shape: TuckerShape, arithmetic: Arithmetic) -> int:
    """The last weights, Y and R."""
    tensors = 2 if shape.residual else 1
    elements = tensors * shape.out_pixels * pitch(shape.m, arithmetic)
    return (elements + (shape.r_out + 1) * shape.m) * ELEMENT_BYTES[arithmetic]


def layer_bytes(shape: TuckerShape, arithmetic: Arithmetic) -> int:
    """X, R, Y and all weights once: the least that any kernel moves."""
    parts = (reduce_bytes, core_bytes, expand_bytes)
    return sum(part(shape, arithmetic) for part in parts)
