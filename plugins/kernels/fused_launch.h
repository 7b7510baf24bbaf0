// Between the fused family and its launchers, which are compiled one arithmetic at a time.
#pragma once

#include "kernels/fused_layout.h"

namespace tdc::fused {

using Launcher = cudaError_t (*)(const TuckerConvParams&, Split, int parts, cudaStream_t);

struct Entry {
    Sizes sizes;
    cudaError_t (*load)();
    Launcher launch;
};

// The configurations of configs.def, in its order.
extern const Entry kF16[], kTf32[], kF32[];

inline long long tile_count(const TuckerConvParams& p, const Sizes& s) {
    return static_cast<long long>(p.n) * ceil_div(p.h_out, s.tile_h) * ceil_div(p.w_out, s.tile_w);
}

inline std::size_t shared_bytes(const TuckerConvParams& p, const Sizes& s, Split split, int parts) {
    return static_cast<std::size_t>(Layout(p, s, split, parts).total) * 16;
}

}  // namespace tdc::fused
