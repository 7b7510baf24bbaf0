// The fused Tucker chain on tensor cores: fp16 in and out, fp32 accumulation, channel last.
//
// A block computes a tile of output pixels for all M channels. Its T1 (with the halo that the kxk
// convolution needs) and T2 live in shared memory; X and all weights stream through a double
// buffer. Each stage is a matrix product of rows (pixels) by columns (channels), done 64 columns at
// a time:
//
//   1. T1 [halo pixels, r_in]   = X    [halo pixels, C]        · first^T
//   2. T2 [tile pixels, r_out]  = T1   [shifted pixels, r_in]  · core[tap]^T, summed over the taps
//   3. Y  [tile pixels, M]      = T2   [tile pixels, r_out]    · last^T
//
// All weights are [out, in], so both operands of every product have the summed index contiguous:
// rows of 16 bytes for cp.async and ldmatrix without a transposition.
#pragma once

#include "tdc/device.h"
#include "tdc/tucker_conv.h"

namespace tdc::fused_f16 {

constexpr int kColumns = 64;  // columns of a pass
constexpr int kDepth = 32;    // summed indices of a chunk
// 16 bytes more than a chunk's row: eight rows that follow one another hit different banks.
constexpr int kChunkPitch = kDepth + 8;

__host__ TDC_DEVICE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
__host__ TDC_DEVICE constexpr int round_up(int a, int b) { return ceil_div(a, b) * b; }

TDC_DEVICE float leaky_relu(float value, float slope) { return value >= 0 ? value : slope * value; }

// Shapes that follow from the parameters and the tile; the host sizes shared memory by them.
struct Geometry {
    int halo_h, halo_w;      // pixels of T1 under the tile
    int halo_rows;           // their number, rounded up to the 16 rows of an mma
    int t1_pitch, t2_pitch;  // elements from one row of T1 and T2 to the next

    __host__ TDC_DEVICE Geometry(const TuckerConvParams& p, int tile_h, int tile_w)
        : halo_h((tile_h - 1) * p.stride_h + (p.kernel_h - 1) * p.dilation_h + 1),
          halo_w((tile_w - 1) * p.stride_w + (p.kernel_w - 1) * p.dilation_w + 1),
          halo_rows(round_up(halo_h * halo_w, 16)),
          t1_pitch(round_up(p.r_in, kDepth) + 8),
          t2_pitch(round_up(p.r_out, kDepth) + 8) {}
};

template <int TileH, int TileW, int WarpsM, int WarpsN>
class Block {
  public:
    static constexpr int kPixels = TileH * TileW;
    static constexpr int kThreads = 32 * WarpsM * WarpsN;
    // mma column tiles (8 wide) of a warp in a pass, and the most row tiles (16 high) it takes at
    // once.
    static constexpr int kTilesN = kColumns / 8 / WarpsN;
    static constexpr int kTilesM = kPixels / 16 / WarpsM;
    static_assert(kPixels % (16 * WarpsM) == 0 && kTilesN % 2 == 0,
                  "whole mma tiles for every warp");

    TDC_DEVICE Block(const TuckerConvParams& params, __half* shared)
        : p(params), g(params, TileH, TileW) {
        t1 = shared;
        t2 = t1 + g.halo_rows * g.t1_pitch;
        rows = t2 + kPixels * g.t2_pitch;
        columns = rows + 2 * kPassRows * kChunkPitch;
        const int tiles_w = ceil_div(p.w_out, TileW);
        image = static_cast<int>(blockIdx.y);
        tile_y = static_cast<int>(blockIdx.x) / tiles_w * TileH;
        tile_x = static_cast<int>(blockIdx.x) % tiles_w * TileW;
    }

    TDC_DEVICE void run() {
        reduce();
        __syncthreads();
        convolve();
        __syncthreads();
        expand();
    }

  private:
    // Stage 1 takes the halo in passes of as many rows as the tile has pixels.
    static constexpr int kPassRows = kPixels;

    using Accumulators = float[kTilesM][kTilesN][4];

    // Stage 1: T1 for every pixel of the halo; zero outside the image, which is the padding.
    TDC_DEVICE void reduce() {
        const int chunks = ceil_div(p.c, kDepth);
        for (int row0 = 0; row0 < g.halo_rows; row0 += kPassRows) {
            for (int column0 = 0; column0 < p.r_in; column0 += kColumns) {
                Accumulators sums = {};
                pipeline(
                    chunks,
                    [&](int buffer, int chunk) {
                        load_pixels(buffer, row0, chunk * kDepth);
                        load_weights(buffer, p.first, p.r_in, p.c, column0, chunk * kDepth);
                    },
                    [&](int buffer, int) {
                        const __half* a = rows + buffer * kPassRows * kChunkPitch;
                        multiply(sums, buffer, [&](int row) { return a + row * kChunkPitch; });
                    });
                store(sums, column0, [&](int row, int column, float x, float y) {
                    keep_t1(row0 + row, column, x, y);
                });
            }
        }
    }

    // Stage 2: T2 for every pixel of the tile, from shifted rows of T1.
    TDC_DEVICE void convolve() {
        const int chunks = ceil_div(p.r_in, kDepth);
        const int taps = p.kernel_h * p.kernel_w;
        for (int column0 = 0; column0 < p.r_out; column0 += kColumns) {
            Accumulators sums = {};
            pipeline(
                taps * chunks,
                [&](int buffer, int step) {
                    const int tap = step / chunks;
                    const auto* core = static_cast<const __half*>(p.core) + tap * p.r_out * p.r_in;
                    load_weights(buffer, core, p.r_out, p.r_in, column0, step % chunks * kDepth);
                },
                [&](int buffer, int step) {
                    const int tap = step / chunks, depth = step % chunks * kDepth;
                    const int y0 = tap / p.kernel_w * p.dilation_h;
                    const int x0 = tap % p.kernel_w * p.dilation_w;
                    multiply(sums, buffer, [&](int row) {
                        const int y = row / TileW * p.stride_h + y0;
                        const int x = row % TileW * p.stride_w + x0;
                        return t1 + (y * g.halo_w + x) * g.t1_pitch + depth;
                    });
                });
            const auto* bias = static_cast<const __half*>(p.core_bias);
            store(sums, column0, [&](int row, int column, float x, float y) {
                if (column >= g.t2_pitch - 8) return;
                keep(t2 + row * g.t2_pitch + column,
                     activate(x, bias, column, p.r_out, p.core_slope),
                     activate(y, bias, column + 1, p.r_out, p.core_slope));
            });
        }
    }

    // Stage 3: Y for every pixel of the tile that is in the image.
    TDC_DEVICE void expand() {
        const int chunks = ceil_div(p.r_out, kDepth);
        for (int column0 = 0; column0 < p.m; column0 += kColumns) {
            Accumulators sums = {};
            pipeline(
                chunks,
                [&](int buffer, int chunk) {
                    load_weights(buffer, p.last, p.m, p.r_out, column0, chunk * kDepth);
                },
                [&](int buffer, int chunk) {
                    multiply(sums, buffer,
                             [&](int row) { return t2 + row * g.t2_pitch + chunk * kDepth; });
                });
            store(sums, column0,
                  [&](int row, int column, float x, float y) { put_y(row, column, x, y); });
        }
    }

    // Runs `multiply(buffer, step)` for every step, while `load` fills the other buffer for the
    // next.
    template <class Load, class Multiply>
    TDC_DEVICE void pipeline(int steps, Load load, Multiply multiply_step) {
        load(0, 0);
        cp_async_commit();
        for (int step = 0; step < steps; ++step) {
            if (step + 1 < steps) load((step + 1) % 2, step + 1);
            cp_async_commit();
            cp_async_wait<1>();
            __syncthreads();
            multiply_step(step % 2, step);
            __syncthreads();
        }
    }

    // Starts loading X at `depth` for kPassRows pixels of the halo from `row0` on; zeros for pixels
    // outside the image and for channels that there are not.
    TDC_DEVICE void load_pixels(int buffer, int row0, int depth) {
        constexpr int kParts = kDepth / 8;
        const auto* x = static_cast<const __half*>(p.x);
        for (int i = thread(); i < kPassRows * kParts; i += kThreads) {
            const int row = i / kParts, channel = depth + i % kParts * 8;
            const int y = input_y(row0 + row), xx = input_x(row0 + row);
            const bool inside = row0 + row < g.halo_h * g.halo_w && in_image(y, xx);
            const int channels = inside ? clamp(p.c - channel) : 0;
            const __half* from = x;
            if (channels > 0) {
                const long long pixel = (static_cast<long long>(image) * p.h + y) * p.w + xx;
                from = x + pixel * channel_pitch(p.c) + channel;
            }
            __half* to = rows + (buffer * kPassRows + row) * kChunkPitch + i % kParts * 8;
            cp_async_16(to, from, channels * 2);
        }
    }

    // Starts loading a chunk of a weight matrix [height, depth_size]: kColumns of its rows from
    // `column0` on, kDepth elements of each from `depth` on; zeros outside.
    TDC_DEVICE void load_weights(int buffer, const void* weights, int height, int depth_size,
                                 int column0, int depth) {
        constexpr int kParts = kDepth / 8;
        const auto* w = static_cast<const __half*>(weights);
        for (int i = thread(); i < kColumns * kParts; i += kThreads) {
            const int column = column0 + i / kParts, k = depth + i % kParts * 8;
            const int count = column < height ? clamp(depth_size - k) : 0;
            const __half* from =
                count > 0 ? w + static_cast<long long>(column) * depth_size + k : w;
            __half* to = columns + (buffer * kColumns + i / kParts) * kChunkPitch + i % kParts * 8;
            if (depth_size % 8 == 0) {
                cp_async_16(to, from, count * 2);
            } else {  // rows that are not 16-byte aligned: C that is no multiple of 8
                for (int e = 0; e < 8; ++e) to[e] = e < count ? from[e] : __float2half(0.0f);
            }
        }
    }

    // sums += rows · columns^T over one chunk; `row_address(row)` is where a row's chunk begins.
    template <class RowAddress>
    TDC_DEVICE void multiply(Accumulators& sums, int buffer, RowAddress row_address) {
        const __half* b = columns + (buffer * kColumns + warp_n() * kTilesN * 8) * kChunkPitch;
#pragma unroll
        for (int k = 0; k < kDepth; k += 16) {
            uint32_t right[kTilesN / 2][4];
#pragma unroll
            for (int j = 0; j < kTilesN / 2; ++j) {
                const int column = j * 16 + lane() / 16 * 8 + lane() % 8;
                ldmatrix_x4(right[j], b + column * kChunkPitch + k + lane() / 8 % 2 * 8);
            }
#pragma unroll
            for (int i = 0; i < kTilesM; ++i) {
                uint32_t left[4];
                const int row = (warp_m() * kTilesM + i) * 16 + lane() % 16;
                ldmatrix_x4(left, row_address(row) + k + lane() / 16 * 8);
#pragma unroll
                for (int j = 0; j < kTilesN; ++j)
                    mma_m16n8k16_f16(sums[i][j], left, right[j / 2][j % 2 * 2],
                                     right[j / 2][j % 2 * 2 + 1]);
            }
        }
    }

    // Gives `put(row, column, value, next)` every pair of neighbouring sums that this thread holds.
    template <class Put>
    TDC_DEVICE void store(const Accumulators& sums, int column0, Put put) {
#pragma unroll
        for (int i = 0; i < kTilesM; ++i) {
#pragma unroll
            for (int j = 0; j < kTilesN; ++j) {
                const int row = (warp_m() * kTilesM + i) * 16 + lane() / 4;
                const int column = column0 + (warp_n() * kTilesN + j) * 8 + lane() % 4 * 2;
                put(row, column, sums[i][j][0], sums[i][j][1]);
                put(row + 8, column, sums[i][j][2], sums[i][j][3]);
            }
        }
    }

    TDC_DEVICE void keep_t1(int row, int column, float x, float y) {
        if (row >= g.halo_rows || column >= g.t1_pitch - 8) return;
        const auto* bias = static_cast<const __half*>(p.first_bias);
        if (row >= g.halo_h * g.halo_w || !in_image(input_y(row), input_x(row))) {
            x = y = 0;
        } else {
            x = activate(x, bias, column, p.r_in, p.first_slope);
            y = activate(y, bias, column + 1, p.r_in, p.first_slope);
        }
        keep(t1 + row * g.t1_pitch + column, x, y);
    }

    TDC_DEVICE void put_y(int row, int column, float x, float y) {
        const int oy = tile_y + row / TileW, ox = tile_x + row % TileW;
        if (oy >= p.h_out || ox >= p.w_out || column >= channel_pitch(p.m)) return;
        const long long pixel = (static_cast<long long>(image) * p.h_out + oy) * p.w_out + ox;
        const long long at = pixel * channel_pitch(p.m) + column;
        keep(static_cast<__half*>(p.y) + at, result(x, at, column), result(y, at + 1, column + 1));
    }

    // One element of Y from its sum; zero in the lanes above M.
    TDC_DEVICE float result(float sum, long long at, int column) const {
        if (column >= p.m) return 0;
        sum += __half2float(static_cast<const __half*>(p.bias)[column]);
        if (p.residual) sum += __half2float(static_cast<const __half*>(p.residual)[at]);
        return leaky_relu(sum, p.slope);
    }

    // An element of T1 or T2; zero in the columns above the rank, which meet no weight.
    TDC_DEVICE float activate(float sum, const __half* bias, int column, int rank,
                              float slope) const {
        return column < rank ? leaky_relu(sum + __half2float(bias[column]), slope) : 0.0f;
    }

    TDC_DEVICE void keep(__half* to, float x, float y) const {
        *reinterpret_cast<__half2*>(to) = __floats2half2_rn(x, y);
    }

    // Where a row of the halo lies in X.
    TDC_DEVICE int input_y(int row) const {
        return tile_y * p.stride_h - p.pad_top + row / g.halo_w;
    }
    TDC_DEVICE int input_x(int row) const {
        return tile_x * p.stride_w - p.pad_left + row % g.halo_w;
    }
    TDC_DEVICE bool in_image(int y, int x) const { return y >= 0 && y < p.h && x >= 0 && x < p.w; }

    TDC_DEVICE static int clamp(int count) { return max(0, min(count, 8)); }
    TDC_DEVICE static int thread() { return static_cast<int>(threadIdx.x); }
    TDC_DEVICE static int lane() { return thread() % 32; }
    TDC_DEVICE static int warp_m() { return thread() / 32 % WarpsM; }
    TDC_DEVICE static int warp_n() { return thread() / 32 / WarpsM; }

    const TuckerConvParams& p;
    const Geometry g;
    __half* t1;       // [halo_rows, t1_pitch]
    __half* t2;       // [kPixels, t2_pitch]
    __half* rows;     // [2, kPassRows, kChunkPitch]: X
    __half* columns;  // [2, kColumns, kChunkPitch]: weights
    int image, tile_y, tile_x;
};

template <int TileH, int TileW, int WarpsM, int WarpsN>
__global__ void __launch_bounds__(32 * WarpsM * WarpsN, 1) kernel(const TuckerConvParams params) {
    TDC_DYNAMIC_SHARED(__half, shared);
    Block<TileH, TileW, WarpsM, WarpsN>(params, shared).run();
}

}  // namespace tdc::fused_f16
