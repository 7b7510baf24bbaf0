// The launch of the fused kernel's configurations of one arithmetic.
#pragma once

#include "kernels/fused.cuh"
#include "kernels/fused_launch.h"

namespace tdc::fused {

// Blocks, and the elements of an image of X, must be fewer than 2^31.
template <class Arithmetic, class Config>
cudaError_t launch_config(const TuckerConvParams& p, Split split, int parts, cudaStream_t stream) {
    using Block = Block<Arithmetic, Config>;
    const long long blocks = tile_count(p, Block::sizes()) * parts;
    const long long image = static_cast<long long>(p.h) * p.w * Arithmetic::pitch(p.c);
    if (blocks > 0x7fffffff || image > 0x7fffffff) return cudaErrorInvalidConfiguration;
    const auto kernel = fused::kernel<Arithmetic, Config>;
    const auto bytes = static_cast<int>(shared_bytes(p, Block::sizes(), split, parts));
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return error;
    const dim3 grid(static_cast<unsigned>(blocks)), threads(Config::kThreads);
    if (split == Split::kCluster)
        TDC_LAUNCH_CLUSTER(kernel, static_cast<unsigned>(parts), grid, threads, bytes, stream, p,
                           split, parts);
    else
        TDC_LAUNCH(kernel, grid, threads, bytes, stream, p, split, parts);
    return cudaGetLastError();
}

}  // namespace tdc::fused
