// TDC's core convolution alone, with the weights as its authors lay them out: what benchmarks
// compare with. The channel-first tactics (tdc/tactics.h) run the same kernel on the operator's
// weights.
#pragma once

#include "tdc/cuda_api.h"

namespace tdc {

struct CoreParams {
    // Device memory, fp32, 16-byte aligned.
    const float* x;        // [n, c, h, w]
    const float* weights;  // [c, kernel_h, kernel_w, m]
    float* y;  // [n, m, h_out, w_out], to which the convolution is added: zero it before

    int n, h, w, c;
    int h_out, w_out, m;
    int kernel_h, kernel_w;
    int stride_h, stride_w;
    int pad_top, pad_left;
    int dilation_h, dilation_w;
};

// Runs it in configuration `config`, a line of TDC_CHANNEL_FIRST_F32 in kernels/configs.def counted
// from 0. Does not wait. An unknown configuration gives cudaErrorInvalidValue, and more shared
// memory than the device has gives an error.
//
// Blocks that share a pixel add their sums by atomicAdd, in any order: results may differ in their
// last places from run to run.
cudaError_t tdc_core_launch(int config, const CoreParams& params, cudaStream_t stream);

}  // namespace tdc
