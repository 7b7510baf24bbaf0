// An emulator's time says nothing of a GPU's.
#include "tdc/c_api.h"

extern "C" {

int tdc_time(int, const tdc_params*, const tdc_timing*, float*) { return TDC_ERROR_NEEDS_GPU; }

int tdc_time_nothing(const tdc_timing*, float*) { return TDC_ERROR_NEEDS_GPU; }

int tdc_core_time(int, const tdc_core_params*, const tdc_timing*, float*) {
    return TDC_ERROR_NEEDS_GPU;
}

}  // extern "C"
