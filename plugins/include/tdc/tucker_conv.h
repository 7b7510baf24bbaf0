// The fused Tucker convolution, as raw pointers and shapes: what every caller shares.
//
//     T1 = lrelu(X · first + first_bias)                                 1x1,  C → r_in
//     T2 = lrelu(conv(T1, core; strides, pads, dilations) + core_bias)   kxk, r_in → r_out
//     Y  = lrelu(T2 · last + bias [+ R])                                 1x1,  r_out → M
//
// lrelu(v) is v where v >= 0, else slope * v: slope 1 is no activation, 0 is ReLU. The padding of
// the convolution is zeros of T1.
#pragma once

#include "tdc/cuda_api.h"

namespace tdc {

struct TuckerConvParams {
    // Device memory, 16-byte aligned. The tactic says which type and layout (tdc/tactics.h):
    //   fp16, channel last   X [n, h, w, pitch(c)], R and Y [n, h_out, w_out, pitch(m)], where
    //                        pitch is the count rounded up to 8 (TensorRT's kHWC8). The lanes above
    //                        the count are never read from X and R, and are zeros in Y
    //   fp32, channel last   X [n, h, w, c], R and Y [n, h_out, w_out, m] (TensorRT's kHWC)
    //   fp32, channel first  X [n, c, h, w], R and Y [n, m, h_out, w_out] (TensorRT's kLINEAR)
    const void* x;
    const void* residual;  // R, or null
    void* y;
    // Weights [out, in] and biases [out], of X's type: first [r_in, c], core [kernel_h, kernel_w,
    // r_out, r_in], last [m, r_out].
    const void* first;
    const void* first_bias;
    const void* core;
    const void* core_bias;
    const void* last;
    const void* bias;
    // What workspace_bytes and counter_count ask for, or null where that is 0. The counters are
    // zero before the first launch; a launch leaves them zero. Launches that may run at the same
    // time need their own.
    void* workspace;
    unsigned* counters;

    int n, h, w, c;
    int h_out, w_out, m;
    int r_in, r_out;
    int kernel_h, kernel_w;
    int stride_h, stride_w;
    int pad_top, pad_left;  // below and on the right, h_out and w_out tell
    int dilation_h, dilation_w;
    float first_slope, core_slope, slope;
};

// The channels that a pixel takes in memory in fp16, channel last.
TDC_HOST_DEVICE constexpr int channel_pitch(int channels) { return (channels + 7) / 8 * 8; }

}  // namespace tdc
