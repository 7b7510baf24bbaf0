// Between the channel-first family and its two kernels: their parameters, what they take, their
// launches.
#pragma once

#include <cstddef>

#include "kernels/channel_first.h"
#include "kernels/chunks.h"

namespace tdc::core {

enum class WeightOrder {
    kPaper,     // [c, kernel_h, kernel_w, m]: neighbouring threads read neighbouring weights
    kOperator,  // [kernel_h, kernel_w, m, c]: a thread reads four channels at once
};

// The input pixels under a tile of output pixels.
struct Halo {
    int h, w;
    TDC_HOST_DEVICE Halo(const CoreParams& p, int tile_h, int tile_w)
        : h((tile_h - 1) * p.stride_h + (p.kernel_h - 1) * p.dilation_h + 1),
          w((tile_w - 1) * p.stride_w + (p.kernel_w - 1) * p.dilation_w + 1) {}
};

struct Config {
    int tile_h, tile_w, channels;
};

// Dynamic shared memory of a block: `channels` channels of the input tile with its halo.
inline std::size_t shared_bytes(const Config& config, const CoreParams& p) {
    const Halo halo(p, config.tile_h, config.tile_w);
    return static_cast<std::size_t>(config.channels) * static_cast<std::size_t>(halo.h) *
           static_cast<std::size_t>(halo.w) * sizeof(float);
}

// Configuration `config` of configs.def, on weights of the operator's order: for any layer.
cudaError_t load(int config);
cudaError_t launch(int config, const CoreParams& p, cudaStream_t stream);

}  // namespace tdc::core

namespace tdc::pointwise {

constexpr int kTile = 64, kDepth = 16;  // kDepth channels of X at a time
constexpr int kSide = 16, kThreads = kSide * kSide, kPerThread = kTile / kSide;
constexpr int kPitch = kTile + 4;
constexpr int kSharedBytes = 2 * kDepth * kPitch * static_cast<int>(sizeof(float));

struct Params {
    const float* x;           // [n, c, pixels]
    const float* weights;     // [m, c]
    const float* bias;        // [m]
    const float* residual;    // [n, m, pixels], or null
    float* y;                 // [n, m, pixels]
    const float* input_bias;  // [c], or null
    float input_slope, slope;
    int n, c, m, pixels;
    float* zeros;  // the launch also sets these to zero
    long long zero_count;
};

cudaError_t load();
cudaError_t launch(const Params& p, cudaStream_t stream);

}  // namespace tdc::pointwise
