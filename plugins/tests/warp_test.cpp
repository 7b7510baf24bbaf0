// Where threads meet: shuffles, ballots, masks, barriers, atomics.

#include <vector>

#include "check.h"
#include "tdc/device.h"

namespace {

constexpr unsigned kAll = ~0u;

// CUDA C++ Programming Guide, "Warp Shuffle Functions": the lane that is read, or the own one.
struct Shuffles {
    int index, exclusive_or, up, down;
};

__global__ void shuffle_kernel(Shuffles* results, int argument, int width) {
    const int lane = static_cast<int>(threadIdx.x);
    const auto delta = static_cast<unsigned>(argument);
    results[lane].index = __shfl_sync(kAll, lane, argument, width);
    results[lane].exclusive_or = __shfl_xor_sync(kAll, lane, argument, width);
    results[lane].up = __shfl_up_sync(kAll, lane, delta, width);
    results[lane].down = __shfl_down_sync(kAll, lane, delta, width);
}

void check_shuffles() {
    for (int width : {1, 2, 4, 8, 16, 32})
        for (int argument = 0; argument < 32; ++argument) {
            std::vector<Shuffles> results(32);
            TDC_LAUNCH(shuffle_kernel, 1, 32, 0, nullptr, results.data(), argument, width);
            for (int lane = 0; lane < 32; ++lane) {
                const Shuffles& result = results[static_cast<size_t>(lane)];
                const int begin = lane / width * width, end = begin + width;
                const int exchanged = lane ^ argument, below = lane - argument,
                          above = lane + argument;
                CHECK(result.index == begin + argument % width);
                CHECK(result.exclusive_or == (exchanged < end ? exchanged : lane));
                CHECK(result.up == (below >= begin ? below : lane));
                CHECK(result.down == (above < end ? above : lane));
            }
        }
}

// The sum over a block of any shape: shuffles in warps, shared memory between them.
__global__ void sum_kernel(const float* values, float* sums) {
    __shared__ float partial[32];
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    const unsigned number = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    float sum = values[number * threads + thread];
    for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(kAll, sum, step);
    if (thread % 32 == 0) partial[thread / 32] = sum;
    __syncthreads();
    if (thread >= 32) return;
    sum = thread < threads / 32 ? partial[thread] : 0;
    for (unsigned step = 16; step; step /= 2) sum += __shfl_down_sync(kAll, sum, step);
    if (thread == 0) sums[number] = sum;
}

void check_sum() {
    const dim3 grid(3, 2, 2), block(16, 4, 4);
    std::vector<float> values(12 * 256), sums(12);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 97);
    TDC_LAUNCH(sum_kernel, grid, block, 0, nullptr, values.data(), sums.data());
    for (size_t i = 0; i < sums.size(); ++i) {
        float sum = 0;
        for (size_t j = 0; j < 256; ++j) sum += values[i * 256 + j];
        CHECK(sums[i] == sum);
    }
}

// Lanes of different masks meet at the same time, also at the same place in the kernel.
__global__ void mask_kernel(unsigned* ballots, int* sums) {
    const unsigned lane = threadIdx.x, part = lane % 3;
    unsigned mask = 0;
    for (unsigned i = part; i < 32; i += 3) mask |= 1u << i;
    ballots[lane] = __ballot_sync(mask, lane % 2);
    const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
    int sum = 1;
    for (int step = 8; step; step /= 2) sum += __shfl_xor_sync(half, sum, step);
    __syncwarp();
    sums[lane] = sum;
}

void check_masks() {
    std::vector<unsigned> ballots(32);
    std::vector<int> sums(32);
    TDC_LAUNCH(mask_kernel, 1, 32, 0, nullptr, ballots.data(), sums.data());
    for (unsigned lane = 0; lane < 32; ++lane) {
        unsigned expected = 0;
        for (unsigned i = 1; i < 32; i += 2)
            if (i % 3 == lane % 3) expected |= 1u << i;
        CHECK(ballots[lane] == expected);
        CHECK(sums[lane] == 16);
    }
}

// Each thread reads what the warp opposite wrote before the barrier.
__global__ void exchange_kernel(int* results, int rounds) {
    TDC_DYNAMIC_SHARED(int, values);
    const unsigned thread = threadIdx.x;
    int value = static_cast<int>(thread);
    for (int round = 0; round < rounds; ++round) {
        values[thread] = value;
        __syncthreads();
        value = values[(thread + 37) % blockDim.x] + 1;
        __syncthreads();
    }
    results[thread] = value;
}

void check_barriers() {
    constexpr int kThreads = 100, kRounds = 5;  // the last warp is not full
    std::vector<int> results(kThreads);
    TDC_LAUNCH(exchange_kernel, 1, kThreads, kThreads * sizeof(int), nullptr, results.data(),
               kRounds);
    for (int i = 0; i < kThreads; ++i)
        CHECK(results[static_cast<size_t>(i)] == (i + 37 * kRounds) % kThreads + kRounds);
}

// The last block to take a ticket sees what all blocks wrote.
__global__ void ticket_kernel(int* parts, unsigned* tickets, int* total) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = static_cast<int>(blockIdx.x) + 1;
        __threadfence();
        last = atomicAdd(tickets, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0)
        for (unsigned i = 0; i < gridDim.x; ++i) *total += parts[i];
}

void check_ticket() {
    std::vector<int> parts(20);
    unsigned tickets = 0;
    int total = 0;
    TDC_LAUNCH(ticket_kernel, 20, 64, 0, nullptr, parts.data(), &tickets, &total);
    CHECK(tickets == 20);
    CHECK(total == 210);
}

}  // namespace

int main() {
    tdc::test::for_each_schedule([] {
        check_shuffles();
        check_sum();
        check_masks();
        check_barriers();
        check_ticket();
    });
    return tdc::test::result();
}
