// The host's side of the CUDA runtime, for launchers and what calls them. Device memory is the
// host's, every call has ended when it returns, and a kernel that fails aborts the process.
// Names and meaning: CUDA Runtime API.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>

struct CUstream_st;
using cudaStream_t = CUstream_st*;

enum cudaError : int {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorNotSupported = 801,
    cudaErrorStreamCaptureUnsupported = 900,
};
using cudaError_t = cudaError;

inline const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess:
            return "no error";
        case cudaErrorInvalidValue:
            return "invalid argument";
        case cudaErrorMemoryAllocation:
            return "out of memory";
        case cudaErrorInvalidConfiguration:
            return "invalid configuration argument";
        case cudaErrorNotSupported:
            return "operation not supported";
        case cudaErrorStreamCaptureUnsupported:
            return "operation not permitted when stream is capturing";
    }
    return "unrecognized error code";
}

namespace tdc::emulator {

// The device that the emulator claims to be; a test may set another. An H100's figures.
struct DeviceAttributes {
    int compute_capability_major = 9, compute_capability_minor = 0;
    int shared_bytes_of_a_block = 227 << 10;
    int multiprocessors = 132;
};
inline DeviceAttributes& device_attributes() {
    static DeviceAttributes attributes;
    return attributes;
}

// Whether a stream is being captured in a CUDA graph: what allocates, frees, copies or waits is
// then an error, and so is the launch of a kernel that was not loaded before. Launches run at once
// all the same.
inline bool& is_capturing() {
    static bool capturing = false;
    return capturing;
}

// Of a call that a capture forbids.
inline cudaError_t outside_capture() {
    return is_capturing() ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

}  // namespace tdc::emulator

enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    if (device != 0) return cudaErrorInvalidValue;
    const auto& a = tdc::emulator::device_attributes();
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount:
            *value = a.multiprocessors;
            return cudaSuccess;
        case cudaDevAttrComputeCapabilityMajor:
            *value = a.compute_capability_major;
            return cudaSuccess;
        case cudaDevAttrComputeCapabilityMinor:
            *value = a.compute_capability_minor;
            return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = a.shared_bytes_of_a_block;
            return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}

// 256-byte aligned, as CUDA's, and filled with 0xFF (NaN) like memory that nobody wrote.
template <class T>
cudaError_t cudaMalloc(T** pointer, std::size_t bytes) {
    void* memory = nullptr;
    if (const cudaError_t error = tdc::emulator::outside_capture()) return error;
    if (posix_memalign(&memory, 256, bytes ? bytes : 1)) return cudaErrorMemoryAllocation;
    std::memset(memory, 0xFF, bytes);
    *pointer = static_cast<T*>(memory);
    return cudaSuccess;
}
inline cudaError_t cudaFree(void* pointer) {
    if (const cudaError_t error = tdc::emulator::outside_capture()) return error;
    std::free(pointer);
    return cudaSuccess;
}
inline cudaError_t cudaMemset(void* pointer, int value, std::size_t bytes) {
    if (const cudaError_t error = tdc::emulator::outside_capture()) return error;
    std::memset(pointer, value, bytes);
    return cudaSuccess;
}
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
    if (const cudaError_t error = tdc::emulator::outside_capture()) return error;
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t) {
    std::memset(pointer, value, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() { return tdc::emulator::outside_capture(); }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return tdc::emulator::outside_capture(); }
constexpr unsigned cudaStreamNonBlocking = 1;
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = nullptr;
    return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
