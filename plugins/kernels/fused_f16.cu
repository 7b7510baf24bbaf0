#include "kernels/fused_launch.cuh"

namespace tdc::fused {

#define TDC_FUSED_F16(...) entry<F16, Config<__VA_ARGS__>>(),
const Entry kF16[] = {
#include "kernels/configs.def"
};

}  // namespace tdc::fused
