// The launch of the fused kernel's configurations of one arithmetic.
#pragma once

#include "kernels/fused.cuh"
#include "kernels/fused_launch.h"
#include "kernels/shared_memory.h"

namespace tdc::fused {

// The elements of the largest weight.
inline long long most_weights(const TuckerConvParams& p) {
    return std::max({1LL * p.r_in * p.c, 1LL * p.kernel_h * p.kernel_w * p.r_out * p.r_in,
                     1LL * p.m * p.r_out});
}

// Blocks, and the elements of an image of X and of a weight, must be fewer than 2^31.
template <class Arithmetic, class Config>
cudaError_t launch_config(const TuckerConvParams& p, Split split, int parts, cudaStream_t stream) {
    using Block = Block<Arithmetic, Config>;
    const long long blocks = tile_count(p, Block::sizes()) * parts;
    const long long image = static_cast<long long>(p.h) * p.w * Arithmetic::pitch(p.c);
    if (blocks == 0) return cudaSuccess;
    if (blocks > 0x7fffffff || image > 0x7fffffff || most_weights(p) > 0x7fffffff)
        return cudaErrorInvalidConfiguration;
    const auto kernel = fused::kernel<Arithmetic, Config>;
    const cudaError_t error = allow_shared_memory(kernel);
    if (error != cudaSuccess) return error;
    const Layout layout(p, Block::sizes(), split, parts);
    const auto cluster = static_cast<unsigned>(split == Split::kCluster ? parts : 1);
    return TDC_LAUNCH_CLUSTER(kernel, cluster, dim3(static_cast<unsigned>(blocks)),
                              dim3(Config::kThreads), layout.total * 16, stream, p, layout, split,
                              parts);
}

// The configuration as a line of its list.
template <class Arithmetic, class Config>
constexpr Entry entry() {
    return {Block<Arithmetic, Config>::sizes(),
            [] { return load_kernel(fused::kernel<Arithmetic, Config>); },
            launch_config<Arithmetic, Config>};
}

}  // namespace tdc::fused
