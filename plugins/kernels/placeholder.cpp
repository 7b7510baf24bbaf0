#include "kernels/families.h"
namespace tdc {
namespace {
bool not_legal(const Tactic&, const TuckerConvParams&, const Device&) { return false; }
std::size_t nothing(const Tactic&, const TuckerConvParams&) { return 0; }
cudaError_t no_launch(const Tactic&, const TuckerConvParams&, cudaStream_t) {
    return cudaErrorNotSupported;
}
}  // namespace
const FamilyFunctions kChannelFirstFamily = {not_legal, nothing, nothing, no_launch};
}  // namespace tdc
