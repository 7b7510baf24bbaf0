#include "kernels/fused_launch.cuh"

namespace tdc::fused {

#define TDC_FUSED_TF32(...) entry<Tf32, Config<__VA_ARGS__>>(),
const Entry kTf32[] = {
#include "kernels/configs.def"
};

}  // namespace tdc::fused
