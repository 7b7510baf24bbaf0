// The fused Tucker convolution, as raw pointers and a stream: what every caller shares.
//
//     T1 = lrelu(X · first + first_bias)                                 1x1,  C → r_in
//     T2 = lrelu(conv(T1, core; strides, pads, dilations) + core_bias)   kxk, r_in → r_out
//     Y  = lrelu(T2 · last + bias [+ R])                                 1x1,  r_out → M
//
// lrelu(v) is v where v >= 0, else slope * v: slope 1 is no activation, 0 is ReLU. The padding of
// the convolution is zeros of T1.
#pragma once

#include <cstddef>

#include "tdc/device.h"

namespace tdc {

struct TuckerConvParams {
    // X [n, h, w, c_pitch], R and Y [n, h_out, w_out, m_pitch], channel last, fp16. A pitch is the
    // channel count rounded up to 8; the lanes above the count are never read from X and R, and are
    // zeros in Y. All are 16-byte aligned.
    const void* x;
    const void* residual;  // R, or null
    void* y;
    // Weights [out, in] and biases [out], fp16: first [r_in, c], core [kernel_h, kernel_w, r_out,
    // r_in], last [m, r_out]. All are 16-byte aligned.
    const void* first;
    const void* first_bias;
    const void* core;
    const void* core_bias;
    const void* last;
    const void* bias;

    int n, h, w, c;
    int h_out, w_out, m;
    int r_in, r_out;  // multiples of 8: padded with zeros
    int kernel_h, kernel_w;
    int stride_h, stride_w;
    int pad_top, pad_left;  // below and on the right, h_out and w_out tell
    int dilation_h, dilation_w;
    float first_slope, core_slope, slope;
};

// The channels that a pixel of `channels` channels takes in memory.
__host__ TDC_DEVICE constexpr int channel_pitch(int channels) { return (channels + 7) / 8 * 8; }

// One configuration of the fused fp16 kernel.
struct FusedF16Config {
    int tile_h, tile_w;  // output pixels of a block
    int warps_m, warps_n;
};

// All configurations; `count` is set to their number. A configuration's tactic is its place,
// from 1.
const FusedF16Config* fused_f16_configs(int& count);

// Dynamic shared memory, in bytes, that a block of this configuration takes for these shapes.
std::size_t fused_f16_shared_bytes(const FusedF16Config& config, const TuckerConvParams& params);

// Whether this configuration computes these shapes on a device that offers a block
// `shared_limit` bytes of dynamic shared memory.
bool fused_f16_is_legal(const FusedF16Config& config, const TuckerConvParams& params,
                        std::size_t shared_limit);

// Runs the whole chain in one launch. It allocates nothing and does not wait. The configuration
// must be legal; a number that is no tactic gives cudaErrorInvalidValue.
cudaError_t fused_f16_launch(int tactic, const TuckerConvParams& params, cudaStream_t stream);

}  // namespace tdc
