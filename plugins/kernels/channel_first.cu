// Launches of the channel-first family's two kernels.
#include "kernels/core.cuh"
#include "kernels/pointwise.cuh"
#include "kernels/shared_memory.h"

namespace tdc {
namespace core {
namespace {

bool fits_int(long long count) { return count <= 0x7fffffff; }

template <int TileH, int TileW, WeightOrder Order>
cudaError_t launch_tile(int channels, const CoreParams& p, cudaStream_t stream) {
    const long long blocks = 1LL * p.n * ceil_div(p.h_out, TileH) * ceil_div(p.w_out, TileW);
    if (blocks == 0) return cudaSuccess;
    if (!fits_int(blocks)) return cudaErrorInvalidConfiguration;
    const bool plain = p.kernel_h == 3 && p.kernel_w == 3 && p.stride_h == 1 && p.stride_w == 1 &&
                       p.dilation_h == 1 && p.dilation_w == 1;
    const auto kernel =
        plain ? core::kernel<TileH, TileW, 3, Order> : core::kernel<TileH, TileW, 0, Order>;
    const cudaError_t error = allow_shared_memory(kernel);
    if (error != cudaSuccess) return error;
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(ceil_div(p.c, channels)));
    const int threads = round_up(p.m, 32) < kMostThreads ? round_up(p.m, 32) : kMostThreads;
    return TDC_LAUNCH(kernel, grid, dim3(static_cast<unsigned>(threads)),
                      shared_bytes({TileH, TileW, channels}, p), stream, p, channels);
}

template <int TileH, int TileW>
cudaError_t load_tile() {
    const cudaError_t error = load_kernel(core::kernel<TileH, TileW, 3, WeightOrder::kOperator>);
    return error == cudaSuccess ? load_kernel(core::kernel<TileH, TileW, 0, WeightOrder::kOperator>)
                                : error;
}

template <WeightOrder Order>
cudaError_t launch_config(int config, const CoreParams& p, cudaStream_t stream) {
    int number = -1;
#define TDC_CHANNEL_FIRST_F32(h, w, c)                       \
    static_assert((c) % 4 == 0, "whole groups of channels"); \
    if (++number == config) return launch_tile<h, w, Order>(c, p, stream);
#include "kernels/configs.def"
    return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t load(int config) {
    int number = -1;
#define TDC_CHANNEL_FIRST_F32(h, w, c) \
    if (++number == config) return load_tile<h, w>();
#include "kernels/configs.def"
    return cudaErrorInvalidValue;
}

cudaError_t launch(int config, const CoreParams& p, cudaStream_t stream) {
    return launch_config<WeightOrder::kOperator>(config, p, stream);
}

}  // namespace core

cudaError_t pointwise::load() { return load_kernel(kernel); }

cudaError_t pointwise::launch(const Params& p, cudaStream_t stream) {
    const long long blocks = 1LL * p.n * ceil_div(p.pixels, kTile);
    if (blocks == 0) return cudaSuccess;
    if (blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(ceil_div(p.m, kTile)));
    return TDC_LAUNCH(kernel, grid, dim3(kThreads), kSharedBytes, stream, p);
}

cudaError_t tdc_core_launch(int config, const CoreParams& params, cudaStream_t stream) {
    return core::launch_config<core::WeightOrder::kPaper>(config, params, stream);
}

}  // namespace tdc
