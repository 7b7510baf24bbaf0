#include "kernels/unfused_launch.cuh"

namespace tdc::unfused {

#define TDC_UNFUSED_TF32(...) entry<Tf32, Config<__VA_ARGS__>>(),
const Entry kTf32[] = {
#include "kernels/configs.def"
};

}  // namespace tdc::unfused
