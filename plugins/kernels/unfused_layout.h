// One convolution of the unfused chain: its parameters, and the kernel's shared memory.
#pragma once

#include "kernels/chunks.h"
#include "tdc/tactics.h"

namespace tdc::unfused {

// y = lrelu(conv(x) + bias [+ residual]), channel last. The summed index runs over taps and, within
// a tap, over c rounded up to whole vectors.
struct ConvParams {
    const void* x;         // [n, h, w, x_pitch]
    const void* residual;  // [n, h_out, w_out, pitch(m)], or null
    const void* weights;   // [kernel_h, kernel_w, m, c]
    const void* bias;      // [m]
    void* y;               // as residual
    int n, h, w, c, x_pitch;
    int h_out, w_out, m;
    int kernel_h, kernel_w;
    int stride_h, stride_w;
    int pad_top, pad_left;
    int dilation_h, dilation_w;
    float slope;
};

struct Sizes {  // of a configuration
    int rows, columns, stages, vector;
};

// Where things lie in shared memory, in vectors of 16 bytes.
struct Layout {
    int rows, columns, places, total;

    TDC_HOST_DEVICE explicit constexpr Layout(const Sizes& s)
        : rows(0),
          columns(rows + s.stages * s.rows * kChunkPitch),
          places(columns + s.stages * s.columns * kChunkPitch),
          total(places + s.rows) {}
};

}  // namespace tdc::unfused
