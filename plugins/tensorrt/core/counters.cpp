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
    check(cudaMemset(block, 0, count * sizeof(unsigned)));
    check(cudaStreamSynchronize(nullptr));  // the layer's stream does not wait for this one
    count_ = count;
}

}  // namespace tdc::plugin
