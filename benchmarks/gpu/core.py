"""TDC's core kernel alone: the best of its configurations, checked first. Needs torch."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch.nn import functional as fn

from benchmarks.gpu.layers import Case
from tdc_deploy.plugin.library import Library
from tdc_deploy.plugin.params import CoreParams

# fp32 sums of some thousand random terms, in float32's last places.
LARGEST_ERROR = 1e-5
SCAN = {"warmup": 5, "samples": 30}


def best_core(library: Library, case: Case, device: str = "cuda") -> dict[str, Any]:
    """The microseconds of the fastest configuration by tdc_core_time, without zeroing its output.

    Raises:
        ValueError: a configuration computes something else.
    """
    layer, ranks = case.layer, case.ranks
    x = torch.randn(layer.batch, ranks.r_in, *layer.in_hw, device=device)
    weights = torch.randn(ranks.r_in, *layer.kernel, ranks.r_out, device=device)
    y = torch.zeros(layer.batch, ranks.r_out, *layer.out_hw, device=device)
    params = _params(case, x, weights, y)
    kernel = weights.double().permute(3, 0, 1, 2)
    geometry = (layer.strides, layer.pads[:2], layer.dilations)
    reference = fn.conv2d(x.double(), kernel, None, *geometry)
    times = {}
    for config in range(library.core_count()):
        y.zero_()
        library.core_launch(config, params, _stream(x))
        if x.is_cuda:
            torch.cuda.synchronize()
        error = float((y.double() - reference).norm() / reference.norm())
        if not error <= LARGEST_ERROR:
            raise ValueError(f"TDC's core {config} has relative error {error} on {case.name}")
        times[config] = statistics.median(library.core_time(config, params, **SCAN))
    config = min(times, key=lambda number: times[number])
    return {"us": times[config], "config": config}


def _params(case: Case, x: torch.Tensor, weights: torch.Tensor, y: torch.Tensor) -> CoreParams:
    layer, ranks = case.layer, case.ranks
    (h, w), (h_out, w_out) = layer.in_hw, layer.out_hw
    params = CoreParams(x.data_ptr(), weights.data_ptr(), y.data_ptr(), layer.batch, h, w)
    params.c, params.m, params.h_out, params.w_out = ranks.r_in, ranks.r_out, h_out, w_out
    params.kernel_h, params.kernel_w = layer.kernel
    params.stride_h, params.stride_w = layer.strides
    params.pad_top, params.pad_left = layer.pads[:2]
    params.dilation_h, params.dilation_w = layer.dilations
    return params


def _stream(x: torch.Tensor) -> int:
    return torch.cuda.current_stream().cuda_stream if x.is_cuda else 0
