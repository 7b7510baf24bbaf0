// Blocks of a cluster run together, and what goes wrong without their barriers is seen.

#include "cluster.h"

#include <vector>

#include "check.h"
#include "tdc/device.h"

namespace {

using tdc::test::ClusterFault;

bool right(ClusterFault fault) {
    constexpr size_t kClusters = 3, kValues = 256;
    std::vector<float> values(kClusters * kValues), sums(kClusters);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 101);
    tdc::test::sum_by_cluster(values.data(), sums.data(), kClusters, fault);
    bool same = true;
    for (size_t i = 0; i < kClusters; ++i) {
        float sum = 0;
        for (size_t j = 0; j < kValues; ++j) sum += values[i * kValues + j];
        same &= sums[i] == sum;
    }
    return same;
}

__global__ void unmet_kernel(int) {
    if (tdc::cluster_rank() == 0) tdc::cluster_sync();
}

__global__ void map_kernel(int offset, unsigned rank) {
    TDC_DYNAMIC_SHARED(int, shared);
    tdc::cluster_shared(shared + offset, rank);
}

void check_diagnoses() {
    CHECK_FAILS("block (0,0,0)\n  threads 0 to 31 wait at cluster_sync, " __FILE__,
                [] { TDC_LAUNCH_CLUSTER(unmet_kernel, 2, 2, 32, 0, nullptr, 0); });
    CHECK_FAILS("not in this block's dynamic shared memory",
                [] { TDC_LAUNCH_CLUSTER(map_kernel, 2, 2, 1, 8, nullptr, 2, 0u); });
    CHECK_FAILS("block 2 of the cluster has ended or never was",
                [] { TDC_LAUNCH_CLUSTER(map_kernel, 2, 2, 1, 8, nullptr, 0, 2u); });
    CHECK_FAILS("clusters of 2 blocks, 3 blocks along x",
                [] { TDC_LAUNCH_CLUSTER(unmet_kernel, 2, 3, 1, 0, nullptr, 0); });
}

}  // namespace

int main() {
    tdc::test::for_each_schedule([] { CHECK(right(ClusterFault::kNone)); });
    // In order, the block that reads comes last: only another order shows that it must wait.
    CHECK(right(ClusterFault::kNoBarrierBefore));
    tdc::emulator::options().seed = 1;
    CHECK(!right(ClusterFault::kNoBarrierBefore));
    tdc::emulator::options().seed = 0;
    CHECK_FAILS("block 0 of the cluster has ended or never was",
                [] { right(ClusterFault::kNoBarrierAfter); });
    check_diagnoses();
    return tdc::test::result();
}
