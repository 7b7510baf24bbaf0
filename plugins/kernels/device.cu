// What the current device is to these kernels.
#include <algorithm>

#include "tdc/device.h"
#include "tdc/tactics.h"

namespace tdc {
namespace {

__global__ void probe() {}

}  // namespace

cudaError_t current_device(Device& device) {
    int number = 0, major = 0, minor = 0, shared = 0, multiprocessors = 0;
    cudaFuncAttributes code{};
    cudaError_t error = cudaGetDevice(&number);
    const auto ask = [&](int& value, cudaDeviceAttr attribute) {
        if (error == cudaSuccess) error = cudaDeviceGetAttribute(&value, attribute, number);
    };
    ask(major, cudaDevAttrComputeCapabilityMajor);
    ask(minor, cudaDevAttrComputeCapabilityMinor);
    ask(shared, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    ask(multiprocessors, cudaDevAttrMultiProcessorCount);
    // Code for an older architecture, compiled again by the driver, lacks what the device has.
    if (error == cudaSuccess) error = cudaFuncGetAttributes(&code, probe);
    device = {std::min(10 * major + minor, code.ptxVersion), static_cast<std::size_t>(shared),
              multiprocessors};
    return error;
}

}  // namespace tdc
