// Races that the schedule at hand does not turn into wrong results, each found in order.

#include <vector>

#include "check.h"
#include "cluster.h"
#include "tdc/device.h"

namespace {

enum Fault { kNone, kNoBarrierBeforeRead, kNoBarrierBeforeWrite, kNoWarpBarrier, kNoWait, kPlain };

constexpr unsigned kThreads = 128;

template <Fault kFault>
__global__ void exchange_kernel(const float* values, float* results) {
    TDC_DYNAMIC_SHARED(float, shared);
    const unsigned thread = threadIdx.x;
    shared[thread] = values[thread];
    shared[thread] += 1;  // a thread is in order with itself
    if (kFault != kNoBarrierBeforeRead) __syncthreads();
    results[thread] = shared[kThreads - 1 - thread];
    if (kFault != kNoBarrierBeforeWrite) __syncthreads();
    shared[thread] = results[thread] + 1;
    if (kFault != kNoWarpBarrier) __syncwarp();
    results[thread] = shared[thread ^ 1];
}

template <Fault kFault>
__global__ void copy_kernel(const float* values, float* results) {
    TDC_DYNAMIC_SHARED(float, shared);
    const unsigned thread = threadIdx.x;
    tdc::cp_async_16(shared + thread * 4, values + thread * 4);
    tdc::cp_async_commit();
    if (kFault != kNoWait) tdc::cp_async_wait<0>();
    __syncthreads();
    results[thread] = shared[(thread + 32) % kThreads * 4];
    if (kFault != kNoBarrierBeforeWrite) __syncthreads();
    if (kFault == kNoWait) return;
    tdc::cp_async_16(shared + thread * 4, values + thread * 4);
    tdc::cp_async_commit();
    tdc::cp_async_wait<0>();
}

template <Fault kFault>
__global__ void count_kernel(const float*, float* results) {
    TDC_DYNAMIC_SHARED(float, shared);
    if (threadIdx.x == 0) shared[0] = 0;
    __syncthreads();
    if (kFault == kPlain && threadIdx.x == 50)
        shared[0] = 1;
    else
        atomicAdd(shared, 1.f);
    __syncthreads();
    results[threadIdx.x] = shared[0];
}

template <Fault kFault>
__global__ void load_kernel(const float* values, float* results) {
    TDC_DYNAMIC_SHARED(float, shared);
    const unsigned thread = threadIdx.x;
    for (unsigned i = 0; i < 4; ++i) shared[thread * 4 + i] = values[thread * 4 + i];
    if (kFault != kNoWarpBarrier) __syncwarp();
    uint32_t r[4];
    tdc::ldmatrix_x4(r, shared + (thread ^ 1) * 4);
    results[thread] = __uint_as_float(r[0]);
}

// A warp reads one value, and a lane replaces it. Lane 31, the last to arrive at __syncwarp, is the
// first to leave it; 30 reads last.
template <Fault kFault>
__global__ void broadcast_kernel(const float*, float* results) {
    TDC_DYNAMIC_SHARED(float, shared);
    if (threadIdx.x >= 32) return;
    if (threadIdx.x == 0) shared[0] = 1;
    __syncwarp();
    results[threadIdx.x] = shared[0];
    if (kFault != kNoWarpBarrier) __syncwarp();
    if (threadIdx.x == 30) shared[0] = 2;
}

// One lane of warp 0 and one of warp 1 read, then the latter writes.
template <Fault kFault>
__global__ void two_readers_kernel(const float*, float* results) {
    TDC_DYNAMIC_SHARED(float, shared);
    const unsigned thread = threadIdx.x;
    if (thread == 0) shared[0] = 1;
    __syncthreads();
    if (thread == 0 || thread == 32) results[thread] = shared[0];
    if (kFault != kNoBarrierBeforeWrite) __syncthreads();
    if (thread == 32) shared[0] = 2;
}

// A lane reads, and after the cluster's barrier another reads and writes.
__global__ void cluster_kernel(const float*, float* results) {
    TDC_DYNAMIC_SHARED(float, shared);
    if (threadIdx.x == 2) shared[0] = 1;
    tdc::cluster_sync();
    if (threadIdx.x == 0) results[0] = shared[0];
    tdc::cluster_sync();
    if (threadIdx.x != 1) return;
    results[1] = shared[0];
    shared[0] = 2;
}

template <class Kernel>
bool clean(Kernel* kernel) {
    return tdc::test::in_child([&] {
               std::vector<float> values(kThreads * 4), results(kThreads);
               TDC_LAUNCH(kernel, 2, kThreads, kThreads * 16, nullptr, values.data(),
                          results.data());
           })
        .ended;
}

template <class Kernel>
void check_race(const char* text, Kernel* kernel) {
    CHECK_FAILS(text, [&] {
        std::vector<float> values(kThreads * 4), results(kThreads);
        TDC_LAUNCH(kernel, 2, kThreads, kThreads * 16, nullptr, values.data(), results.data());
    });
}

}  // namespace

int main() {
    CHECK(clean(exchange_kernel<kNone>));
    check_race("race: ", exchange_kernel<kNoBarrierBeforeRead>);
    check_race("race: ", exchange_kernel<kNoBarrierBeforeWrite>);
    check_race("race: ", exchange_kernel<kNoWarpBarrier>);
    check_race("  warp 0:\n    void (anonymous namespace)::exchange_kernel",
               exchange_kernel<kNoWarpBarrier>);
    CHECK(clean(copy_kernel<kNone>));
    check_race("race: access to what cp.async is writing", copy_kernel<kNoWait>);
    check_race("race: write after read", copy_kernel<kNoBarrierBeforeWrite>);
    CHECK(clean(count_kernel<kNone>));
    check_race("race: ", count_kernel<kPlain>);
    CHECK(clean(load_kernel<kNone>));
    check_race("race: ", load_kernel<kNoWarpBarrier>);
    CHECK(clean(broadcast_kernel<kNone>));
    check_race("race: write after read", broadcast_kernel<kNoWarpBarrier>);
    CHECK(clean(two_readers_kernel<kNone>));
    check_race("race: write after read", two_readers_kernel<kNoBarrierBeforeWrite>);

    using tdc::test::ClusterFault;
    CHECK(clean(cluster_kernel));
    const std::vector<float> values(256);
    float sum = 0;
    tdc::test::sum_by_cluster(values.data(), &sum, 1, ClusterFault::kNone);
    CHECK_FAILS("race: read after write", [&] {
        tdc::test::sum_by_cluster(values.data(), &sum, 1, ClusterFault::kNoBarrierBefore);
    });
    return tdc::test::result();
}
