// A block computes a tile of 64 x 64 with 4 warps of 32 x 32, in steps of 32 along k. Tiles of a
// and b arrive by cp.async in one of two stages while the other is multiplied.
#include "gemm.h"
#include "tdc/device.h"

namespace tdc::test {
namespace {

constexpr int kThreads = 128, kTileM = 64, kTileN = 64, kTileK = 32;
// Rows are 16 bytes longer than their data, so that 8 rows of ldmatrix lie in different banks.
constexpr int kStrideA = kTileK + 8, kStrideB = kTileN + 8;
constexpr int kStageA = kTileM * kStrideA, kStage = kStageA + kTileK * kStrideB;
constexpr int kSharedBytes = 2 * kStage * static_cast<int>(sizeof(__half));

struct Gemm {
    const __half *a, *b;
    __half* c;
    int m, n, k;
};

// Copies the tile at (row, column) of a matrix of rows x columns, with zeros outside it.
template <int kRows, int kColumns, int kStride>
TDC_DEVICE void copy_tile(__half* tile, const __half* matrix, int row, int column, int rows,
                          int columns) {
    constexpr int kChunks = kColumns / 8;  // of 16 bytes in a row
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunks; i += kThreads) {
        const int r = row + i / kChunks, c = column + i % kChunks * 8;
        const bool inside = r < rows && c < columns;
        cp_async_16(tile + i / kChunks * kStride + i % kChunks * 8,
                    inside ? matrix + r * columns + c : matrix, inside ? 16 : 0);
    }
}

TDC_DEVICE void copy_stage(__half* stage, const Gemm& gemm, int row, int column, int k) {
    copy_tile<kTileM, kTileK, kStrideA>(stage, gemm.a, row, k, gemm.m, gemm.k);
    copy_tile<kTileK, kTileN, kStrideB>(stage + kStageA, gemm.b, k, column, gemm.k, gemm.n);
    cp_async_commit();
}

// sums += the warp's 32 rows of a times its 32 columns of b.
TDC_DEVICE void multiply_stage(float (&sums)[2][4][4], const __half* a, const __half* b) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int k = 0; k < kTileK; k += 16) {
        uint32_t left[2][4], right[2][4];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            ldmatrix_x4(left[i], a + (i * 16 + lane % 16) * kStrideA + k + lane / 16 * 8);
            ldmatrix_x4_trans(right[i], b + (k + lane % 16) * kStrideB + i * 16 + lane / 16 * 8);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
                mma_m16n8k16_f16(sums[i][j], left[i], right[j / 2][j % 2 * 2],
                                 right[j / 2][j % 2 * 2 + 1]);
    }
}

// Writes the warp's sums to the 32 x 32 elements of c at (row, column).
TDC_DEVICE void store(const Gemm& gemm, const float (&sums)[2][4][4], int row, int column) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int r = row + i * 16 + half * 8 + lane / 4, c = column + j * 8 + lane % 4 * 2;
                if (r < gemm.m && c < gemm.n)
                    *reinterpret_cast<__half2*>(gemm.c + r * gemm.n + c) =
                        __floats2half2_rn(sums[i][j][half * 2], sums[i][j][half * 2 + 1]);
            }
}

__global__ void __launch_bounds__(kThreads) gemm_kernel(Gemm gemm) {
    TDC_DYNAMIC_SHARED(__half, shared);
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int row = static_cast<int>(blockIdx.y) * kTileM, warp_row = warp / 2 * 32;
    const int column = static_cast<int>(blockIdx.x) * kTileN, warp_column = warp % 2 * 32;
    const int steps = (gemm.k + kTileK - 1) / kTileK;
    float sums[2][4][4] = {};
    copy_stage(shared, gemm, row, column, 0);
    for (int step = 0; step < steps; ++step) {
        // After the last tile this copies zeros, which keeps the count of groups.
        copy_stage(shared + (step + 1) % 2 * kStage, gemm, row, column, (step + 1) * kTileK);
        cp_async_wait<1>();
        __syncthreads();
        const __half* const stage = shared + step % 2 * kStage;
        multiply_stage(sums, stage + warp_row * kStrideA, stage + kStageA + warp_column);
        __syncthreads();
    }
    cp_async_wait<0>();
    store(gemm, sums, row + warp_row, column + warp_column);
}

}  // namespace

void gemm(const unsigned short* a, const unsigned short* b, unsigned short* c, int m, int n,
          int k) {
    const Gemm gemm{reinterpret_cast<const __half*>(a),
                    reinterpret_cast<const __half*>(b),
                    reinterpret_cast<__half*>(c),
                    m,
                    n,
                    k};
    const dim3 grid(static_cast<unsigned>((n + kTileN - 1) / kTileN),
                    static_cast<unsigned>((m + kTileM - 1) / kTileM));
    TDC_LAUNCH(gemm_kernel, grid, kThreads, kSharedBytes, nullptr, gemm);
}

}  // namespace tdc::test
