// From the C interface's structs to the kernels' own.
#pragma once

#include "kernels/channel_first.h"
#include "tdc/c_api.h"
#include "tdc/tucker_conv.h"

namespace tdc::api {

inline TuckerConvParams converted(const tdc_params& p) {
    TuckerConvParams q{};
    q.x = p.x, q.residual = p.residual, q.y = p.y;
    q.first = p.first, q.first_bias = p.first_bias;
    q.core = p.core, q.core_bias = p.core_bias;
    q.last = p.last, q.bias = p.bias;
    q.workspace = p.workspace, q.counters = p.counters;
    q.n = p.n, q.h = p.h, q.w = p.w, q.c = p.c;
    q.h_out = p.h_out, q.w_out = p.w_out, q.m = p.m;
    q.r_in = p.r_in, q.r_out = p.r_out;
    q.kernel_h = p.kernel_h, q.kernel_w = p.kernel_w;
    q.stride_h = p.stride_h, q.stride_w = p.stride_w;
    q.pad_top = p.pad_top, q.pad_left = p.pad_left;
    q.dilation_h = p.dilation_h, q.dilation_w = p.dilation_w;
    q.first_slope = p.first_slope, q.core_slope = p.core_slope, q.slope = p.slope;
    return q;
}

inline CoreParams converted(const tdc_core_params& p) {
    CoreParams q{};
    q.x = p.x, q.weights = p.weights, q.y = p.y;
    q.n = p.n, q.h = p.h, q.w = p.w, q.c = p.c;
    q.h_out = p.h_out, q.w_out = p.w_out, q.m = p.m;
    q.kernel_h = p.kernel_h, q.kernel_w = p.kernel_w;
    q.stride_h = p.stride_h, q.stride_w = p.stride_w;
    q.pad_top = p.pad_top, q.pad_left = p.pad_left;
    q.dilation_h = p.dilation_h, q.dilation_w = p.dilation_w;
    return q;
}

}  // namespace tdc::api
