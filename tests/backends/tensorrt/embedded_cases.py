"""Layers for the embedded kernels: operands, and the operator in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tdc_deploy.profiling.analytical.shapes import TuckerShape

Array = np.ndarray[Any, Any]


def leaky_relu(values: Array, slope: float) -> Array:
    return np.where(values < 0, slope * values, values)


@dataclass(frozen=True)
class Operands:
    """Float64 arrays: X and R [n, channels, h, w], weights as the operator has them."""

    x: Array
    weights: tuple[Array, ...]
    residual: Array | None

    def of_type(self, dtype: str) -> list[Array]:
        """As the kernel takes them: channel last, fp16 with 8 channels a vector."""
        step = 8 if dtype == "float16" else 1
        arrays = [channel_last(self.x, dtype, step)]
        arrays += [np.ascontiguousarray(weight, dtype) for weight in self.weights]
        if self.residual is not None:
            arrays.append(channel_last(self.residual, dtype, step))
        return arrays


def draw(shape: TuckerShape, dtype: str, seed: int = 0) -> Operands:
    """Operands that the type holds exactly, of sizes that keep every intermediate near 1."""
    rng = np.random.default_rng(seed)
    (kh, kw), (h_out, w_out) = shape.kernel, shape.out_hw

    def normal(*size: int, fan: int = 1) -> Array:
        return np.asarray(rng.standard_normal(size) / np.sqrt(fan), dtype).astype(np.float64)

    weights = (
        normal(shape.r_in, shape.c, fan=shape.c),
        normal(shape.r_in),
        normal(kh, kw, shape.r_out, shape.r_in, fan=kh * kw * shape.r_in),
        normal(shape.r_out),
        normal(shape.m, shape.r_out, fan=shape.r_out),
        normal(shape.m),
    )
    residual = normal(shape.n, shape.m, h_out, w_out) if shape.residual else None
    return Operands(normal(shape.n, shape.c, shape.h, shape.w), weights, residual)


def reference(operands: Operands, shape: TuckerShape, slopes: tuple[float, float, float]) -> Array:
    """Y of plugins/include/tdc/tucker_conv.h, tap by tap."""
    first, first_bias, core, core_bias, last, bias = operands.weights
    t1 = np.einsum("rc,nchw->nrhw", first, operands.x) + first_bias[:, None, None]
    top, left, bottom, right = shape.pads
    t1 = np.pad(leaky_relu(t1, slopes[0]), ((0, 0), (0, 0), (top, bottom), (left, right)))
    (h_out, w_out), (sh, sw), (dh, dw) = shape.out_hw, shape.strides, shape.dilations
    t2 = np.zeros((shape.n, shape.r_out, h_out, w_out)) + core_bias[:, None, None]
    for y in range(shape.kernel[0]):
        for x in range(shape.kernel[1]):
            rows = slice(y * dh, y * dh + (h_out - 1) * sh + 1, sh)
            columns = slice(x * dw, x * dw + (w_out - 1) * sw + 1, sw)
            t2 += np.einsum("or,nrhw->nohw", core[y, x], t1[:, :, rows, columns])
    result = np.einsum("mo,nohw->nmhw", last, leaky_relu(t2, slopes[1])) + bias[:, None, None]
    if operands.residual is not None:
        result = result + operands.residual
    return leaky_relu(result, slopes[2])


def channel_last(values: Array, dtype: str, step: int) -> Array:
    """[n, h, w, channels]; lanes that fill up a step hold NaN, which nobody may read."""
    n, channels, h, w = values.shape
    padded = np.full((n, h, w, -(-channels // step) * step), np.nan, dtype)
    padded[..., :channels] = values.transpose(0, 2, 3, 1)
    return padded
