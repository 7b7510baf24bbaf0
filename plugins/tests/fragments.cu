#include "fragments.h"
#include "tdc/device.h"

namespace tdc::test {
namespace {

__global__ void load_kernel(const uint16_t* tile, uint32_t* registers, bool transposed) {
    TDC_DYNAMIC_SHARED(uint16_t, shared);
    const int lane = static_cast<int>(threadIdx.x);
    for (int i = 0; i < 8; ++i) shared[lane * 8 + i] = tile[lane * 8 + i];
    __syncwarp();
    uint32_t r[4];
    if (transposed)
        ldmatrix_x4_trans(r, shared + lane * 8);
    else
        ldmatrix_x4(r, shared + lane * 8);
    for (int i = 0; i < 4; ++i) registers[lane * 4 + i] = r[i];
}

template <bool kTf32>
__global__ void multiply_kernel(const uint32_t* a, const uint32_t* b, float* d) {
    const int lane = static_cast<int>(threadIdx.x);
    float sum[4];
    uint32_t left[4];
    for (int i = 0; i < 4; ++i) {
        sum[i] = d[lane * 4 + i];
        left[i] = a[lane * 4 + i];
    }
    if (kTf32)
        mma_m16n8k8_tf32(sum, left, b[lane * 2], b[lane * 2 + 1]);
    else
        mma_m16n8k16_f16(sum, left, b[lane * 2], b[lane * 2 + 1]);
    for (int i = 0; i < 4; ++i) d[lane * 4 + i] = sum[i];
}

__global__ void round_kernel(const float* values, uint32_t* bits) {
    bits[threadIdx.x] = to_tf32(values[threadIdx.x]);
}

}  // namespace

void load_fragments(const uint16_t* tile, uint32_t* registers, bool transposed) {
    TDC_LAUNCH(load_kernel, 1, 32, 512, nullptr, tile, registers, transposed);
}

void multiply_f16(const uint32_t* a, const uint32_t* b, float* d) {
    TDC_LAUNCH(multiply_kernel<false>, 1, 32, 0, nullptr, a, b, d);
}

void multiply_tf32(const uint32_t* a, const uint32_t* b, float* d) {
    TDC_LAUNCH(multiply_kernel<true>, 1, 32, 0, nullptr, a, b, d);
}

void round_tf32(const float* values, uint32_t* bits) {
    TDC_LAUNCH(round_kernel, 1, 32, 0, nullptr, values, bits);
}

}  // namespace tdc::test
