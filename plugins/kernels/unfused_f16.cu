#include "kernels/unfused_launch.cuh"

namespace tdc::unfused {

#define TDC_UNFUSED_F16(...) entry<F16, Config<__VA_ARGS__>>(),
const Entry kF16[] = {
#include "kernels/configs.def"
};

}  // namespace tdc::unfused
