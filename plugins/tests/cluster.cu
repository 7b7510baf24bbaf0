#include "cluster.h"
#include "tdc/device.h"

namespace tdc::test {
namespace {

constexpr unsigned kBlocks = 4, kThreads = 64;

// The threads of the last block gather what those of all blocks hold; thread 0 adds that up.
template <ClusterFault kFault>
__global__ void sum_kernel(const float* values, float* sums) {
    TDC_DYNAMIC_SHARED(float, shared);
    shared[threadIdx.x] = values[blockIdx.x * kThreads + threadIdx.x];
    if (kFault != ClusterFault::kNoBarrierBefore) cluster_sync();
    if (cluster_rank() == kBlocks - 1) {
        float sum = 0;
        for (unsigned rank = 0; rank < kBlocks; ++rank)
            sum += cluster_shared(shared, rank)[threadIdx.x];
        shared[kThreads + threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.x == 0) {
            sum = 0;
            for (unsigned i = 0; i < kThreads; ++i) sum += shared[kThreads + i];
            sums[blockIdx.x / kBlocks] = sum;
        }
    }
    if (kFault != ClusterFault::kNoBarrierAfter) cluster_sync();
}

}  // namespace

void sum_by_cluster(const float* values, float* sums, int clusters, ClusterFault fault) {
    const dim3 grid(static_cast<unsigned>(clusters) * kBlocks);
    const int bytes = 2 * kThreads * static_cast<int>(sizeof(float));
    const auto run = [&](auto kernel) {
        TDC_LAUNCH_CLUSTER(kernel, kBlocks, grid, kThreads, bytes, nullptr, values, sums);
    };
    if (fault == ClusterFault::kNone) run(sum_kernel<ClusterFault::kNone>);
    if (fault == ClusterFault::kNoBarrierBefore) run(sum_kernel<ClusterFault::kNoBarrierBefore>);
    if (fault == ClusterFault::kNoBarrierAfter) run(sum_kernel<ClusterFault::kNoBarrierAfter>);
}

}  // namespace tdc::test
