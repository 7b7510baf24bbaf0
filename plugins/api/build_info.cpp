// How this library was built; CMake defines the TDC_* macros.
#include "tdc/c_api.h"
#include "tdc/cuda_api.h"

#define TDC_TEXT_OF(value) #value
#define TDC_TEXT(value) TDC_TEXT_OF(value)

extern "C" const char* tdc_build_info() {
    return "{\"version\": \"" TDC_VERSION "\", \"kernel_revision\": \"" TDC_KERNEL_REVISION
           "\", "
#ifdef TDC_EMULATED
           "\"emulated\": true}";
#else
           "\"emulated\": false, \"cuda_runtime\": " TDC_TEXT(CUDART_VERSION) ", "
           "\"architectures\": \"" TDC_ARCHITECTURES "\"}";
#endif
}
