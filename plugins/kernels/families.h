// What each family of kernels offers to tactics.cpp, which documents it in tdc/tactics.h. The
// tactic given is one of the family's.
#pragma once

#include "tdc/tactics.h"

namespace tdc {

struct FamilyFunctions {
    bool (*is_legal)(const Tactic&, const TuckerConvParams&, const Device&);
    std::size_t (*workspace_bytes)(const Tactic&, const TuckerConvParams&);
    std::size_t (*counter_count)(const Tactic&, const TuckerConvParams&);
    cudaError_t (*load)(const Tactic&);
    cudaError_t (*launch)(const Tactic&, const TuckerConvParams&, cudaStream_t);
};

extern const FamilyFunctions kFusedFamily, kUnfusedFamily, kChannelFirstFamily;

}  // namespace tdc
