#include "tensorrt/core/counters.h"

#include <string>

#include "tdc/cuda_api.h"
#include "tensorrt/core/error.h"

namespace tdc::plugin {
namespace {

void check(cudaError_t error) {
    if (error != cudaSuccess)
        throw PluginError(std::string("allocating counters: ") + cudaGetErrorString(error));
}

// Zeros in device memory, there when this returns. On a stream of its own: work on the default
// stream would break a capture that another thread has on a stream that waits for that one.
void clear(void* memory, std::size_t bytes) {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    cudaError_t error = cudaMemsetAsync(memory, 0, bytes, stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
    check(error);
}

}  // namespace

Counters::~Counters() {
    for (unsigned* block : blocks_) cudaFree(block);
}

void Counters::reserve(std::size_t count) {
    if (count <= count_) return;
    blocks_.reserve(blocks_.size() + 1);
    void* block = nullptr;
    check(cudaMalloc(&block, count * sizeof(unsigned)));
    blocks_.push_back(static_cast<unsigned*>(block));
    clear(block, count * sizeof(unsigned));
    count_ = count;
}

}  // namespace tdc::plugin
