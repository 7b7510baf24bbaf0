#include "kernels/fused_launch.cuh"

namespace tdc::fused {

#define TDC_FUSED_F32(...) entry<F32, Config<__VA_ARGS__>>(),
const Entry kF32[] = {
#include "kernels/configs.def"
};

}  // namespace tdc::fused
