// cp.async: right kernels pass in both modes; each typical fault is caught in the mode meant for
// it.

#include <cmath>
#include <vector>

#include "check.h"
#include "tdc/device.h"

namespace {

enum Fault { kNone, kNoWait, kWaitTooShort, kWrongStage, kNoBarrier };

constexpr int kThreads = 64, kTiles = 5;

// Sums tiles of 4 floats per thread, each read by a thread of the other warp, through two stages.
template <Fault kFault>
__global__ void sum_tiles_kernel(const float* tiles, float* sums) {
    TDC_DYNAMIC_SHARED(float, shared);
    const int thread = static_cast<int>(threadIdx.x);
    const auto copy = [&](int tile) {
        const int stage = kFault == kWrongStage ? (tile + 1) / 2 % 2 : tile % 2;
        if (tile < kTiles)
            tdc::cp_async_16(shared + (stage * kThreads + thread) * 4,
                             tiles + (tile * kThreads + thread) * 4);
        tdc::cp_async_commit();
    };
    float sum = 0;
    copy(0);
    for (int tile = 0; tile < kTiles; ++tile) {
        copy(tile + 1);
        if (kFault == kWaitTooShort) tdc::cp_async_wait<2>();
        if (kFault != kNoWait && kFault != kWaitTooShort) tdc::cp_async_wait<1>();
        __syncthreads();
        const int stage = kFault == kWrongStage ? (tile + 1) / 2 % 2 : tile % 2;
        for (int i = 0; i < 4; ++i)
            sum += shared[(stage * kThreads + (thread + 32) % kThreads) * 4 + i];
        if (kFault != kNoBarrier) __syncthreads();
    }
    tdc::cp_async_wait<0>();
    sums[thread] = sum;
}

// Whether the kernel gives the right sums.
template <Fault kFault>
bool right(uint64_t seed, bool eager) {
    tdc::emulator::options() = {seed, eager};
    std::vector<float> tiles(kTiles * kThreads * 4), sums(kThreads);
    for (size_t i = 0; i < tiles.size(); ++i) tiles[i] = static_cast<float>(i % 1000);
    TDC_LAUNCH(sum_tiles_kernel<kFault>, 1, kThreads, 2 * kThreads * 16, nullptr, tiles.data(),
               sums.data());
    bool same = true;
    for (size_t thread = 0; thread < kThreads; ++thread) {
        float sum = 0;
        for (size_t tile = 0; tile < kTiles; ++tile)
            for (size_t i = 0; i < 4; ++i)
                sum += tiles[(tile * kThreads + (thread + 32) % kThreads) * 4 + i];
        same &= sums[thread] == sum;
    }
    return same;
}

template <Fault kFault>
int times_right(bool eager) {
    int times = 0;
    for (uint64_t seed = 0; seed < 8; ++seed) times += right<kFault>(seed, eager);
    return times;
}

void check_faults() {
    CHECK(times_right<kNone>(false) == 8);
    CHECK(times_right<kNone>(true) == 8);
    // A missing wait shows always when copies land late, and never when they land at once.
    CHECK(times_right<kNoWait>(false) == 0);
    CHECK(times_right<kNoWait>(true) == 8);
    CHECK(times_right<kWaitTooShort>(false) == 0);
    CHECK(times_right<kWaitTooShort>(true) == 8);
    // A copy into the stage that is being read shows always when copies land at once.
    CHECK(times_right<kWrongStage>(true) == 0);
    CHECK(times_right<kWrongStage>(false) > 0);
    // A warp that is ahead writes the stage which another still reads.
    CHECK(times_right<kNoBarrier>(true) < 8);
}

__global__ void partial_kernel(const uint8_t* source, uint8_t* target) {
    TDC_DYNAMIC_SHARED(uint8_t, shared);
    const int thread = static_cast<int>(threadIdx.x);
    tdc::cp_async_16(shared + thread * 16, source, thread);
    tdc::cp_async_commit();
    tdc::cp_async_wait<0>();
    for (int i = 0; i < 16; ++i) target[thread * 16 + i] = shared[thread * 16 + i];
}

void check_zero_fill() {
    alignas(16) uint8_t source[16];
    for (int i = 0; i < 16; ++i) source[i] = static_cast<uint8_t>(i + 1);
    std::vector<uint8_t> target(17 * 16);
    TDC_LAUNCH(partial_kernel, 1, 17, 17 * 16, nullptr, source, target.data());
    for (size_t size = 0; size <= 16; ++size)
        for (size_t i = 0; i < 16; ++i) CHECK(target[size * 16 + i] == (i < size ? i + 1 : 0));
}

__global__ void misuse_kernel(const float* source, int source_offset, int target_offset,
                              int bytes) {
    TDC_DYNAMIC_SHARED(float, shared);
    tdc::cp_async_16(shared + target_offset, source + source_offset, bytes);
}

void misuse(int source_offset, int target_offset, int bytes) {
    alignas(16) float source[8] = {};
    TDC_LAUNCH(misuse_kernel, 1, 1, 32, nullptr, source, source_offset, target_offset, bytes);
}

void check_misuse() {
    CHECK_FAILS("not 16-byte aligned", [] { misuse(1, 0, 16); });
    CHECK_FAILS("not 16-byte aligned", [] { misuse(0, 1, 16); });
    CHECK_FAILS("cp.async of 17 bytes", [] { misuse(0, 0, 17); });
    CHECK_FAILS("not waited for, the first from", [] { misuse(0, 0, 16); });
}

}  // namespace

int main() {
    check_faults();
    tdc::test::for_each_schedule(check_zero_fill);
    check_misuse();
    return tdc::test::result();
}
