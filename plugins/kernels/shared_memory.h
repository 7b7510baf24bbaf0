// What kernels need before they are launched.
#pragma once

#include "tdc/device.h"

namespace tdc {

// As much as the device has for a block, not what one launch needs: the limit belongs to the
// kernel, and launches from several threads would lower it for each other.
template <class Kernel>
cudaError_t allow_shared_memory(Kernel* kernel) {
    int device = 0, bytes = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error == cudaSuccess)
        error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    return error;
}

// Brings a kernel onto the current device, where CUDA would do so at its first launch.
template <class Kernel>
cudaError_t load_kernel(Kernel* kernel) {
    cudaFuncAttributes attributes{};
    return cudaFuncGetAttributes(&attributes, kernel);
}

}  // namespace tdc
