// What the current device is to these kernels.
#include <algorithm>
#include <array>
#include <atomic>

#include "tdc/device.h"
#include "tdc/tactics.h"

namespace tdc {
namespace {

__global__ void probe() {}

// 10 * the compute capability that the code which runs on device `number` was compiled for, asked
// once: unlike a device's attributes it takes microseconds, and every launch wants it.
cudaError_t code_capability(int number, int& capability) {
    static std::array<std::atomic<int>, 64> known{};
    auto* const slot = number < static_cast<int>(known.size()) ? &known[number] : nullptr;
    if (slot && (capability = slot->load())) return cudaSuccess;
    cudaFuncAttributes code{};
    const cudaError_t error = cudaFuncGetAttributes(&code, probe);
    capability = code.ptxVersion;
    if (slot && error == cudaSuccess) slot->store(capability);
    return error;
}

}  // namespace

cudaError_t current_device(Device& device) {
    int number = 0, major = 0, minor = 0, shared = 0, multiprocessors = 0;
    int code = 0;
    cudaError_t error = cudaGetDevice(&number);
    const auto ask = [&](int& value, cudaDeviceAttr attribute) {
        if (error == cudaSuccess) error = cudaDeviceGetAttribute(&value, attribute, number);
    };
    ask(major, cudaDevAttrComputeCapabilityMajor);
    ask(minor, cudaDevAttrComputeCapabilityMinor);
    ask(shared, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    ask(multiprocessors, cudaDevAttrMultiProcessorCount);
    // Code for an older architecture, compiled again by the driver, lacks what the device has.
    if (error == cudaSuccess) error = code_capability(number, code);
    device = {std::min(10 * major + minor, code), static_cast<std::size_t>(shared),
              multiprocessors};
    return error;
}

}  // namespace tdc
