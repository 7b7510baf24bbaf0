// A reduction across the blocks of a cluster.
#pragma once

namespace tdc::test {

enum class ClusterFault { kNone, kNoBarrierBefore, kNoBarrierAfter };

// sums[i] = the sum of values[i * 4 * 64 ...] over the 4 blocks of 64 threads of cluster i.
// Pointers are to device memory.
void sum_by_cluster(const float* values, float* sums, int clusters, ClusterFault fault);

}  // namespace tdc::test
