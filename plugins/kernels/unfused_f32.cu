#include "kernels/unfused_launch.cuh"

namespace tdc::unfused {

#define TDC_UNFUSED_F32(...) entry<F32, Config<__VA_ARGS__>>(),
const Entry kF32[] = {
#include "kernels/configs.def"
};

}  // namespace tdc::unfused
