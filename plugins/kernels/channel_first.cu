// The channel-first family: TDC's core kernel between two 1x1 kernels, T1 and T2 (fp32, channel
// first) in the workspace. The first launch also sets T2 to zero, to which the core kernel adds;
// T2's bias and activation are applied by the last launch, as it reads.
#include "kernels/core.cuh"
#include "kernels/families.h"
#include "kernels/pointwise.cuh"

namespace tdc {
namespace {

struct Config {
    int tile_h, tile_w, channels;
};
constexpr Config kConfigs[] = {
#define TDC_CHANNEL_FIRST_F32(h, w, c) {h, w, c},
#include "kernels/configs.def"
};

std::size_t size(int a, int b, int c, int d) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c) *
           static_cast<std::size_t>(d);
}
std::size_t t1_size(const TuckerConvParams& p) { return size(p.n, p.r_in, p.h, p.w); }
std::size_t t2_size(const TuckerConvParams& p) { return size(p.n, p.r_out, p.h_out, p.w_out); }

// The core convolution of a layer; its tensors are the launch's.
CoreParams core_of(const TuckerConvParams& p) {
    CoreParams core{};
    core.weights = static_cast<const float*>(p.core);
    core.n = p.n, core.h = p.h, core.w = p.w, core.c = p.r_in;
    core.h_out = p.h_out, core.w_out = p.w_out, core.m = p.r_out;
    core.kernel_h = p.kernel_h, core.kernel_w = p.kernel_w;
    core.stride_h = p.stride_h, core.stride_w = p.stride_w;
    core.pad_top = p.pad_top, core.pad_left = p.pad_left;
    core.dilation_h = p.dilation_h, core.dilation_w = p.dilation_w;
    return core;
}

std::size_t core_shared_bytes(const Config& config, const CoreParams& p) {
    const core::Halo halo(p, config.tile_h, config.tile_w);
    return size(config.channels, halo.h, halo.w, sizeof(float));
}

bool fits_int(long long count) { return count <= 0x7fffffff; }

template <int TileH, int TileW, core::WeightOrder Order>
cudaError_t launch_core(const Config& config, const CoreParams& p, cudaStream_t stream) {
    const long long tiles = 1LL * ceil_div(p.h_out, TileH) * ceil_div(p.w_out, TileW);
    if (!fits_int(tiles * p.n)) return cudaErrorInvalidConfiguration;
    const bool plain = p.kernel_h == 3 && p.kernel_w == 3 && p.stride_h == 1 && p.stride_w == 1 &&
                       p.dilation_h == 1 && p.dilation_w == 1;
    const auto kernel =
        plain ? core::kernel<TileH, TileW, 3, Order> : core::kernel<TileH, TileW, 0, Order>;
    const auto bytes = static_cast<int>(core_shared_bytes(config, p));
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return error;
    const dim3 grid(static_cast<unsigned>(tiles * p.n),
                    static_cast<unsigned>(ceil_div(p.c, config.channels)));
    const int threads =
        round_up(p.m, 32) < core::kMostThreads ? round_up(p.m, 32) : core::kMostThreads;
    TDC_LAUNCH(kernel, grid, dim3(static_cast<unsigned>(threads)), bytes, stream, p,
               config.channels);
    return cudaGetLastError();
}

template <core::WeightOrder Order>
cudaError_t launch_core_config(int config, const CoreParams& p, cudaStream_t stream) {
    int number = -1;
#define TDC_CHANNEL_FIRST_F32(h, w, c)                       \
    static_assert((c) % 4 == 0, "whole groups of channels"); \
    if (++number == config) return launch_core<h, w, Order>(kConfigs[number], p, stream);
#include "kernels/configs.def"
    return cudaErrorInvalidValue;
}

cudaError_t launch_pointwise(const pointwise::Params& p, cudaStream_t stream) {
    const long long blocks = 1LL * p.n * ceil_div(p.pixels, pointwise::kTile);
    if (!fits_int(blocks)) return cudaErrorInvalidConfiguration;
    const dim3 grid(static_cast<unsigned>(blocks),
                    static_cast<unsigned>(ceil_div(p.m, pointwise::kTile)));
    TDC_LAUNCH(pointwise::kernel, grid, dim3(pointwise::kThreads), pointwise::kSharedBytes, stream,
               p);
    return cudaGetLastError();
}

pointwise::Params first_of(const TuckerConvParams& p, float* t1, float* t2) {
    pointwise::Params first{};
    first.x = static_cast<const float*>(p.x);
    first.weights = static_cast<const float*>(p.first);
    first.bias = static_cast<const float*>(p.first_bias);
    first.y = t1;
    first.slope = p.first_slope;
    first.n = p.n, first.c = p.c, first.m = p.r_in, first.pixels = p.h * p.w;
    first.zeros = t2;
    first.zero_count = static_cast<long long>(t2_size(p));
    return first;
}

pointwise::Params last_of(const TuckerConvParams& p, const float* t2) {
    pointwise::Params last{};
    last.x = t2;
    last.weights = static_cast<const float*>(p.last);
    last.bias = static_cast<const float*>(p.bias);
    last.residual = static_cast<const float*>(p.residual);
    last.y = static_cast<float*>(p.y);
    last.input_bias = static_cast<const float*>(p.core_bias);
    last.input_slope = p.core_slope;
    last.slope = p.slope;
    last.n = p.n, last.c = p.r_out, last.m = p.m, last.pixels = p.h_out * p.w_out;
    return last;
}

bool channel_first_is_legal(const Tactic& t, const TuckerConvParams& p, const Device& device) {
    return pointwise::kSharedBytes <= device.shared_bytes &&
           core_shared_bytes(kConfigs[t.config], core_of(p)) <= device.shared_bytes;
}

std::size_t channel_first_workspace(const Tactic&, const TuckerConvParams& p) {
    return (t1_size(p) + t2_size(p)) * sizeof(float);
}

std::size_t no_counters(const Tactic&, const TuckerConvParams&) { return 0; }

cudaError_t channel_first_launch(const Tactic& t, const TuckerConvParams& p, cudaStream_t stream) {
    if (!fits_int(1LL * p.h * p.w) || !fits_int(1LL * p.h_out * p.w_out))
        return cudaErrorInvalidConfiguration;
    auto* const t1 = static_cast<float*>(p.workspace);
    float* const t2 = t1 + t1_size(p);
    cudaError_t error = launch_pointwise(first_of(p, t1, t2), stream);
    if (error != cudaSuccess) return error;
    CoreParams core = core_of(p);
    core.x = t1;
    core.y = t2;
    error = launch_core_config<core::WeightOrder::kOperator>(t.config, core, stream);
    if (error != cudaSuccess) return error;
    return launch_pointwise(last_of(p, t2), stream);
}

}  // namespace

const FamilyFunctions kChannelFirstFamily = {channel_first_is_legal, channel_first_workspace,
                                             no_counters, channel_first_launch};

cudaError_t tdc_core_launch(int config, const CoreParams& params, cudaStream_t stream) {
    return launch_core_config<core::WeightOrder::kPaper>(config, params, stream);
}

}  // namespace tdc
