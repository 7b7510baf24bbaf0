// The C interface to TDC's core kernel.
#include "api/convert.h"
#include "tdc/c_api.h"

namespace {

// One for each line of configs.def that is the core's.
constexpr int kCount = 0
#define TDC_CHANNEL_FIRST_F32(...) +1
#include "kernels/configs.def"
    ;

}  // namespace

extern "C" {

int tdc_core_count() { return kCount; }

int tdc_core_launch(int config, const tdc_core_params* params, void* stream) {
    if (!params) return TDC_ERROR_ARGUMENT;
    if (config < 0 || config >= kCount) return TDC_ERROR_NO_TACTIC;
    return tdc::tdc_core_launch(config, tdc::api::converted(*params),
                                static_cast<cudaStream_t>(stream));
}

}  // extern "C"
