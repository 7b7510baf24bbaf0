// Letting a kernel have more dynamic shared memory than every device gives.
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

}  // namespace tdc
