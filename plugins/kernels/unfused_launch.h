// Between the unfused family and its launchers, which are compiled one arithmetic at a time.
#pragma once

#include "kernels/unfused_layout.h"

namespace tdc::unfused {

struct Entry {
    Sizes sizes;
    cudaError_t (*load)();
    cudaError_t (*launch)(const ConvParams&, cudaStream_t);
};

// The configurations of configs.def, in its order.
extern const Entry kF16[], kTf32[], kF32[];

}  // namespace tdc::unfused
