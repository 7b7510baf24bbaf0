// Faulty kernels, and what the emulator says of each.

#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "tdc/device.h"

namespace {

__global__ void divergent_barrier_kernel(int* value) {
    if (threadIdx.x < 32) {
        *value = 1;
        __syncthreads();
    } else {
        __syncthreads();
    }
}

__global__ void unreached_barrier_kernel(int) {
    if (threadIdx.x >= 32) return;
    __syncthreads();
}

__global__ void crossed_kernel(int) {
    if (threadIdx.x == 0)
        __syncwarp();
    else
        __syncthreads();
}

__global__ void ended_lane_kernel(unsigned ending) {
    if (threadIdx.x != ending) __syncwarp();
}

__global__ void mask_kernel(unsigned mask) { __syncwarp(mask); }

__global__ void divergent_warp_kernel(float value) {
    if (threadIdx.x < 16)
        __shfl_xor_sync(~0u, value, 1);
    else
        __ballot_sync(~0u, 1);
}

__global__ void outside_shuffle_kernel(int source) {
    if (threadIdx.x < 16) __shfl_sync(0xffffu, 0, source);
}

__global__ void unaligned_row_kernel(int offset) {
    TDC_DYNAMIC_SHARED(unsigned char, shared);
    uint32_t r[4];
    tdc::ldmatrix_x4(r, shared + offset);
}

void check_meetings() {
    int value = 0;
    CHECK_FAILS("divergent barrier: this thread waits at " __FILE__,
                [&] { TDC_LAUNCH(divergent_barrier_kernel, 1, 64, 0, nullptr, &value); });
    CHECK_FAILS("threads 32 to 63 have ended",
                [] { TDC_LAUNCH(unreached_barrier_kernel, 1, 64, 0, nullptr, 0); });
    CHECK_FAILS(
        "deadlock in kernel crossed_kernel:\n block (0,0,0)\n  threads 0 to 0 wait at __syncwarp",
        [] { TDC_LAUNCH(crossed_kernel, 1, 32, 0, nullptr, 0); });
    CHECK_FAILS("threads 1 to 31 wait at __syncthreads, " __FILE__ ":",
                [] { TDC_LAUNCH(crossed_kernel, 1, 32, 0, nullptr, 0); });
    CHECK_FAILS("lanes 00000001 of mask ffffffff have ended or never were",
                [] { TDC_LAUNCH(ended_lane_kernel, 1, 32, 0, nullptr, 0u); });
    CHECK_FAILS("threads 31 to 31 have ended",
                [] { TDC_LAUNCH(ended_lane_kernel, 1, 32, 0, nullptr, 31u); });
    CHECK_FAILS("of mask ffffffff have ended or never were",
                [] { TDC_LAUNCH(mask_kernel, 1, 40, 0, nullptr, ~0u); });
    CHECK_FAILS("this lane is not in its own mask 000000fe",
                [] { TDC_LAUNCH(mask_kernel, 1, 8, 0, nullptr, 0xfeu); });
    CHECK_FAILS("divergent warp",
                [] { TDC_LAUNCH(divergent_warp_kernel, 1, 32, 0, nullptr, 1.f); });
    CHECK_FAILS("shuffle from lane 20, which is not in the mask 0000ffff",
                [] { TDC_LAUNCH(outside_shuffle_kernel, 1, 32, 0, nullptr, 20); });
    CHECK_FAILS("is not 16-byte aligned",
                [] { TDC_LAUNCH(unaligned_row_kernel, 1, 32, 64, nullptr, 8); });
}

void check_launches() {
    CHECK_FAILS("a block of 1056 threads",
                [] { TDC_LAUNCH(crossed_kernel, 1, 1056, 0, nullptr, 0); });
    CHECK_FAILS("a grid of (0,1,1)", [] { TDC_LAUNCH(crossed_kernel, 0, 32, 0, nullptr, 0); });
    const auto large = [] { TDC_LAUNCH(mask_kernel, 1, 32, 64 << 10, nullptr, ~0u); };
    CHECK_FAILS("65536 bytes of dynamic shared memory, 49152 allowed", large);
    cudaFuncSetAttribute(mask_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10);
    CHECK(tdc::test::in_child(large).ended);
}

// Reads what its neighbour in another warp (or lane) wrote, without waiting for it.
__global__ void race_kernel(float* results, unsigned distance) {
    TDC_DYNAMIC_SHARED(float, values);
    values[threadIdx.x] = 1;
    results[threadIdx.x] = threadIdx.x < distance ? 1 : values[threadIdx.x - distance];
}

// In how many of the seeds' schedules every thread reads what was written.
int times_unseen(unsigned threads, unsigned distance) {
    int times = 0;
    for (uint64_t seed = 0; seed < 8; ++seed) {
        tdc::emulator::options().seed = seed;
        std::vector<float> results(threads);
        TDC_LAUNCH(race_kernel, 1, threads, 256, nullptr, results.data(), distance);
        bool seen = false;
        for (float result : results) seen |= std::isnan(result);
        times += !seen;
    }
    tdc::emulator::options().seed = 0;
    return times;
}

__global__ void turn_kernel(unsigned* turn, unsigned* turns) {
    turns[blockIdx.x] = atomicAdd(turn, 1u);
}

// When each block had its turn.
std::vector<unsigned> turns(uint64_t seed) {
    tdc::emulator::options().seed = seed;
    std::vector<unsigned> turns(20);
    unsigned turn = 0;
    TDC_LAUNCH(turn_kernel, 20, 1, 0, nullptr, &turn, turns.data());
    tdc::emulator::options().seed = 0;
    return turns;
}

void check_schedules() {
    CHECK(times_unseen(64, 0) == 8);
    // In order, a thread reads what one before it has written.
    CHECK(times_unseen(64, 32) >= 1);
    CHECK(times_unseen(64, 32) < 8);
    CHECK(times_unseen(32, 1) >= 1);
    CHECK(times_unseen(32, 1) < 8);

    const std::vector<unsigned> in_order = turns(0), drawn = turns(1);
    CHECK(std::is_sorted(in_order.begin(), in_order.end()));
    CHECK(!std::is_sorted(drawn.begin(), drawn.end()));
    CHECK(drawn == turns(1));
    CHECK(drawn != turns(2));
    CHECK(std::is_permutation(drawn.begin(), drawn.end(), in_order.begin(), in_order.end()));
}

// What shared memory holds from one block to the next: nothing.
__global__ void stale_kernel(float* results) {
    TDC_DYNAMIC_SHARED(float, values);
    results[blockIdx.x] = values[0];
    values[0] = 1;
}

void check_stale() {
    std::vector<float> results(3);
    TDC_LAUNCH(stale_kernel, 3, 1, 4, nullptr, results.data());
    for (float result : results) CHECK(std::isnan(result));
}

#ifdef __SANITIZE_ADDRESS__
__global__ void write_kernel(float* global, int global_index, int shared_index) {
    TDC_DYNAMIC_SHARED(float, shared);
    shared[shared_index] = 0;
    global[global_index] = 0;
}

__global__ void copy_kernel(const float* global, int shared_index) {
    TDC_DYNAMIC_SHARED(float, shared);
    tdc::cp_async_16(shared + shared_index, global);
    tdc::cp_async_commit();
    tdc::cp_async_wait<0>();
}

void check_bounds() {
    std::vector<float> global(5);
    const auto write = [&](int global_index, int shared_index) {
        TDC_LAUNCH(write_kernel, 1, 32, 20, nullptr, global.data(), global_index, shared_index);
    };
    const auto copy = [&](int global_index, int shared_index) {
        TDC_LAUNCH(copy_kernel, 1, 32, 20, nullptr, global.data() + global_index, shared_index);
    };
    CHECK(tdc::test::in_child([&] { write(4, 4); }).ended);
    CHECK(tdc::test::in_child([&] { copy(0, 0); }).ended);
    CHECK_FAILS("heap-buffer-overflow", [&] { write(4, 5); });
    CHECK_FAILS("heap-buffer-overflow", [&] { write(4, -1); });
    CHECK_FAILS("heap-buffer-overflow", [&] { write(5, 4); });
    CHECK_FAILS("in write_kernel " __FILE__, [&] { write(5, 4); });
    CHECK_FAILS("heap-buffer-overflow", [&] { copy(4, 0); });
    CHECK_FAILS("heap-buffer-overflow", [&] { copy(0, 4); });
    CHECK_FAILS("AsyncCopies::issue", [&] { copy(0, 4); });  // not when it lands
}
#else
void check_bounds() {}
#endif

}  // namespace

int main() {
    check_meetings();
    check_launches();
    check_schedules();
    check_stale();
    check_bounds();
    return tdc::test::result();
}
