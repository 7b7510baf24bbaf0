"""A layer as the kernels take it: tdc_params of plugins/include/tdc/c_api.h."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_void_p

from tdc_deploy.errors import TdcError
from tdc_deploy.types import ConvLayer, Ranks

RANK_STEP = 8
NO_ACTIVATIONS = (1.0, 1.0, 1.0)

_POINTERS = ["x", "residual", "y", "first", "first_bias", "core", "core_bias", "last", "bias"]
_POINTERS += ["workspace", "counters"]
_SIZES = ["n", "h", "w", "c", "h_out", "w_out", "m", "r_in", "r_out", "kernel_h", "kernel_w"]
_SIZES += ["stride_h", "stride_w", "pad_top", "pad_left", "dilation_h", "dilation_w"]
_SLOPES = ["first_slope", "core_slope", "slope"]


class Params(ctypes.Structure):
    """tdc_params: a layer's shape, and the device addresses of its tensors.

    Addresses (ints, 16-byte aligned): x, residual, y, first, first_bias, core, core_bias, last, bias,
    workspace, counters. Sizes: n, h, w, c, h_out, w_out, m, r_in, r_out, kernel_h, kernel_w, stride_h,
    stride_w, pad_top, pad_left, dilation_h, dilation_w. Negative slopes: first_slope, core_slope,
    slope. plugins/include/tdc/tucker_conv.h says what each means; all start as 0.
    """

    _fields_ = (
        *((name, c_void_p) for name in _POINTERS),
        *((name, c_int) for name in _SIZES),
        *((name, c_float) for name in _SLOPES),
    )


class CoreParams(ctypes.Structure):
    """tdc_core_params: a convolution alone, fp32, channel first; plugins/kernels/channel_first.h."""

    _fields_ = (
        *((name, c_void_p) for name in ("x", "weights", "y")),
        *((name, c_int) for name in _SIZES if name not in ("r_in", "r_out")),
    )


def layer_params(
    layer: ConvLayer, ranks: Ranks, slopes: tuple[float, float, float] = NO_ACTIVATIONS
) -> Params:
    """The sizes of the chain 1x1 → kxk → 1x1 that stands for a convolution; no addresses yet.

    `slopes` are the negative slopes of the three activations; 1 is none, 0 is ReLU.

    Raises:
        TdcError: a grouped convolution, or ranks that are no multiples of 8.
    """
    if layer.groups != 1 or ranks.r_in % RANK_STEP or ranks.r_out % RANK_STEP:
        raise TdcError(
            f"{layer.groups} groups, ranks {ranks.r_in} and {ranks.r_out}",
            expected=f"1 group, and ranks that are multiples of {RANK_STEP}",
            fix="pad the factors with zeros to the next multiple: the result stays the same",
        )
    (h, w), (h_out, w_out) = layer.in_hw, layer.out_hw
    params = Params(n=layer.batch, h=h, w=w, c=layer.c_in, h_out=h_out, w_out=w_out, m=layer.c_out)
    params.r_in, params.r_out = ranks.r_in, ranks.r_out
    params.kernel_h, params.kernel_w = layer.kernel
    params.stride_h, params.stride_w = layer.strides
    params.pad_top, params.pad_left = layer.pads[:2]
    params.dilation_h, params.dilation_w = layer.dilations
    params.first_slope, params.core_slope, params.slope = slopes
    return params
