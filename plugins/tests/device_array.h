// Device memory of a test: exactly as large as asked for, so that AddressSanitizer guards its ends
// where the device is the emulator.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tdc/cuda_api.h"

namespace tdc::test {

// Ends the test: nothing that follows would mean anything.
inline void require(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
    std::exit(EXIT_FAILURE);
}

class DeviceArray {
  public:
    // Every byte is 0xFF, which is NaN in every floating-point format.
    explicit DeviceArray(std::size_t bytes) : bytes_(bytes) {
        if (!bytes) return;
        require(cudaMalloc(&data_, bytes), "cudaMalloc");
        fill(0xFF);
    }
    template <class T>
    explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size() * sizeof(T)) {
        require(cudaMemcpy(data_, values.data(), bytes_, cudaMemcpyHostToDevice), "cudaMemcpy");
    }
    DeviceArray(const DeviceArray&) = delete;
    DeviceArray& operator=(const DeviceArray&) = delete;
    ~DeviceArray() { cudaFree(data_); }

    void fill(int byte) {
        if (bytes_) require(cudaMemset(data_, byte, bytes_), "cudaMemset");
    }
    template <class T>
    std::vector<T> values() const {
        std::vector<T> values(bytes_ / sizeof(T));
        if (bytes_)
            require(cudaMemcpy(values.data(), data_, bytes_, cudaMemcpyDeviceToHost), "cudaMemcpy");
        return values;
    }
    void* data() const { return data_; }  // null where there are no bytes

  private:
    void* data_ = nullptr;
    std::size_t bytes_;
};

}  // namespace tdc::test
