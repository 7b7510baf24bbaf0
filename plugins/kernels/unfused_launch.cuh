// The launch of the unfused kernel's configurations of one arithmetic.
#pragma once

#include "kernels/shared_memory.h"
#include "kernels/unfused.cuh"
#include "kernels/unfused_launch.h"

namespace tdc::unfused {

// Blocks, and pixels of X and Y with a block's beyond the last, must be fewer than 2^31.
template <class Arithmetic, class Config>
cudaError_t launch_config(const ConvParams& p, cudaStream_t stream) {
    const long long pixels = static_cast<long long>(p.n) * p.h_out * p.w_out;
    const long long blocks = (pixels + Config::kRows - 1) / Config::kRows *
                             ceil_div(Arithmetic::pitch(p.m), Config::kColumns);
    if (blocks == 0) return cudaSuccess;
    if (blocks > 0x7fffffff || pixels > 0x7fffffff - Config::kRows ||
        static_cast<long long>(p.n) * p.h * p.w > 0x7fffffff)
        return cudaErrorInvalidConfiguration;
    const auto kernel = unfused::kernel<Arithmetic, Config>;
    const cudaError_t error = allow_shared_memory(kernel);
    if (error != cudaSuccess) return error;
    constexpr int kBytes = Layout(Block<Arithmetic, Config>::sizes()).total * 16;
    return TDC_LAUNCH(kernel, dim3(static_cast<unsigned>(blocks)), dim3(Config::kThreads), kBytes,
                      stream, p);
}

// The configuration as a line of its list.
template <class Arithmetic, class Config>
constexpr Entry entry() {
    return {Block<Arithmetic, Config>::sizes(),
            [] { return load_kernel(unfused::kernel<Arithmetic, Config>); },
            launch_config<Arithmetic, Config>};
}

}  // namespace tdc::unfused
