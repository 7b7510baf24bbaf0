// Products of matrices in shared memory by the warps of a block: what all tensor core and CUDA core
// kernels of the channel-last families share.
//
// Operands are rows of vectors (16 bytes each), the summed index contiguous on both sides:
// sums[row, column] += sum over k of rows[row, k] * columns[column, k]. An arithmetic says what the
// elements are and how a warp multiplies. Every arithmetic leaves its sums where
// mma.m16n8k16 does, so that all share one epilogue.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/chunks.h"
#include "tdc/device.h"
#include "tdc/tucker_conv.h"

namespace tdc {

// ReLU of -infinity is 0, and of NaN is NaN.
TDC_DEVICE float leaky_relu(float value, float slope) {
    return value < 0 ? (slope == 0 ? 0 : slope * value) : value;
}
TDC_DEVICE float4 leaky_relu(const float4& v, float slope) {
    return make_float4(leaky_relu(v.x, slope), leaky_relu(v.y, slope), leaky_relu(v.z, slope),
                       leaky_relu(v.w, slope));
}
TDC_DEVICE float4 add(const float4& a, const float4& b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
TDC_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
TDC_DEVICE int lane_index() { return thread_index() % 32; }

struct Half {
    using Element = __half;
    static constexpr int kVector = 16 / sizeof(Element);  // elements of a vector
    TDC_DEVICE static float load(const Element* from) { return __half2float(*from); }
    TDC_DEVICE static void store(Element* to, float value) { *to = __float2half_rn(value); }
    using Four = uint2;  // neighbouring elements, as they are in memory: one access
    TDC_DEVICE static Four no_four() { return make_uint2(0, 0); }
    TDC_DEVICE static float4 to_float(const Four& four) {
        __half2 low, high;
        memcpy(&low, &four.x, sizeof low);
        memcpy(&high, &four.y, sizeof high);
        const float2 xy = __half22float2(low), zw = __half22float2(high);
        return make_float4(xy.x, xy.y, zw.x, zw.y);
    }
    TDC_DEVICE static void store_four(Element* to, const float4& v) {
        const __half2 low = __floats2half2_rn(v.x, v.y), high = __floats2half2_rn(v.z, v.w);
        Four four;
        memcpy(&four.x, &low, sizeof low);
        memcpy(&four.y, &high, sizeof high);
        *reinterpret_cast<Four*>(to) = four;
    }
    // Channels that a pixel takes in memory.
    TDC_HOST_DEVICE static constexpr int pitch(int channels) { return channel_pitch(channels); }
};

struct Single {
    using Element = float;
    static constexpr int kVector = 16 / sizeof(Element);
    TDC_DEVICE static float load(const Element* from) { return *from; }
    TDC_DEVICE static void store(Element* to, float value) { *to = value; }
    using Four = float4;
    TDC_DEVICE static Four no_four() { return make_float4(0, 0, 0, 0); }
    TDC_DEVICE static float4 to_float(const Four& four) { return four; }
    TDC_DEVICE static void store_four(Element* to, const float4& v) {
        *reinterpret_cast<float4*>(to) = v;
    }
    TDC_HOST_DEVICE static constexpr int pitch(int channels) { return channels; }
};

// Two vectors a step through ldmatrix and mma. ldmatrix moves 16-byte rows whatever is in them: of
// fp32 it gives a lane just the element that mma.m16n8k8 wants of it.
template <class Type, class Mma>
struct TensorCores : Type {
    using typename Type::Element;
    static constexpr int kRowsOfLane = 1;  // rows of a 16-row tile that a lane addresses
    static constexpr int kStep = 2;        // vectors

    TDC_DEVICE static int row(int) { return lane_index() % 16; }

    // What T1 and T2 are rounded to where they are kept.
    TDC_DEVICE static float4 as_operand(const float4& v) {
        return make_float4(Mma::rounded(v.x), Mma::rounded(v.y), Mma::rounded(v.z),
                           Mma::rounded(v.w));
    }

    // Adds the product of one chunk: its first `vectors` vectors, rounded up to a whole step (so
    // there must be finite numbers in the rows there, and zeros in the columns). `rows[i]` is row
    // row(0) of tile i, `offset(v)` where its vector v is; `columns` is the warp's first column.
    // Rows that come from as_operand are not rounded again.
    template <bool AreOperands, int TilesM, int TilesN, class Offset>
    TDC_DEVICE static void multiply(float (&sums)[TilesM][TilesN][4],
                                    const Element* const (&rows)[TilesM], Offset offset,
                                    const Element* columns, int vectors) {
        const int column = lane_index() / 16 * 8 + lane_index() % 8;
        columns += (column * kChunkPitch + lane_index() / 8 % 2) * Type::kVector;
        if (vectors >= kChunk) {  // without a branch, so that steps overlap
#pragma unroll
            for (int v = 0; v < kChunk; v += kStep)
                step<AreOperands>(sums, rows, offset(v + lane_index() / 16),
                                  columns + v * Type::kVector);
        } else {
#pragma unroll 1
            for (int v = 0; v < vectors; v += kStep)
                step<AreOperands>(sums, rows, offset(v + lane_index() / 16),
                                  columns + v * Type::kVector);
        }
    }

  private:
    template <bool AreOperands, int TilesM, int TilesN>
    TDC_DEVICE static void step(float (&sums)[TilesM][TilesN][4],
                                const Element* const (&rows)[TilesM], int at,
                                const Element* columns) {
        uint32_t right[TilesN / 2][4];
#pragma unroll
        for (int j = 0; j < TilesN / 2; ++j) {
            ldmatrix_x4(right[j], columns + j * 16 * kChunkPitch * Type::kVector);
            Mma::round(right[j]);
        }
#pragma unroll
        for (int i = 0; i < TilesM; ++i) {
            uint32_t left[4];
            ldmatrix_x4(left, rows[i] + at);
            if constexpr (!AreOperands) Mma::round(left);
#pragma unroll
            for (int j = 0; j < TilesN; ++j)
                Mma::mma(sums[i][j], left, right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
        }
    }
};

struct MmaF16 {
    TDC_DEVICE static float rounded(float value) { return value; }  // by the conversion to fp16
    TDC_DEVICE static void round(uint32_t (&)[4]) {}
    TDC_DEVICE static void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
        mma_m16n8k16_f16(d, a, b0, b1);
    }
};

struct MmaTf32 {
    TDC_DEVICE static float rounded(float value) { return __uint_as_float(to_tf32(value)); }
    TDC_DEVICE static void round(uint32_t (&r)[4]) {
#pragma unroll
        for (uint32_t& bits : r) bits = to_tf32(__uint_as_float(bits));
    }
    TDC_DEVICE static void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
        mma_m16n8k8_tf32(d, a, b0, b1);
    }
};

using F16 = TensorCores<Half, MmaF16>;
using Tf32 = TensorCores<Single, MmaTf32>;

// One vector a step, exact fp32 products and sums.
struct F32 : Single {
    static constexpr int kRowsOfLane = 2;
    static constexpr int kStep = 1;

    TDC_DEVICE static int row(int which) { return lane_index() / 4 + which * 8; }
    TDC_DEVICE static float4 as_operand(const float4& v) { return v; }

    // As TensorCores::multiply; `rows[2i + s]` is row row(s) of tile i.
    template <bool AreOperands, int TilesM, int TilesN, class Offset>
    TDC_DEVICE static void multiply(float (&sums)[TilesM][TilesN][4],
                                    const float* const (&rows)[2 * TilesM], Offset offset,
                                    const float* columns, int vectors) {
        columns += lane_index() % 4 * 2 * kChunkPitch * kVector;
#pragma unroll 1
        for (int v = 0; v < min(vectors, kChunk); ++v) {
            const int at = offset(v);
            float4 left[2 * TilesM];
#pragma unroll
            for (int i = 0; i < 2 * TilesM; ++i)
                left[i] = *reinterpret_cast<const float4*>(rows[i] + at);
#pragma unroll
            for (int j = 0; j < 2 * TilesN; ++j) {
                const int column = j / 2 * 8 + j % 2;
                const float4 right = *reinterpret_cast<const float4*>(
                    columns + (column * kChunkPitch + v) * kVector);
#pragma unroll
                for (int i = 0; i < 2 * TilesM; ++i)
                    add_dot(sums[i / 2][j / 2][i % 2 * 2 + j % 2], left[i], right);
            }
        }
    }

  private:
    TDC_DEVICE static void add_dot(float& sum, const float4& a, const float4& b) {
        sum += a.x * b.x;
        sum += a.y * b.y;
        sum += a.z * b.z;
        sum += a.w * b.w;
    }
};

// The rows and columns of a block's pass that a warp multiplies: TilesM x TilesN tiles of 16 x 8.
template <class Arithmetic, int Rows, int Columns, int WarpsM, int WarpsN>
struct WarpTiles {
    using Element = typename Arithmetic::Element;
    static constexpr int kThreads = 32 * WarpsM * WarpsN;
    static constexpr int kTilesM = Rows / 16 / WarpsM, kTilesN = Columns / 8 / WarpsN;
    static constexpr int kRowsOfLane = Arithmetic::kRowsOfLane * kTilesM;
    static_assert(Rows % (16 * WarpsM) == 0 && Columns % (16 * WarpsN) == 0,
                  "whole tiles, two by two, for every warp");

    using Sums = float[kTilesM][kTilesN][4];
    using RowPointers = const Element* [kRowsOfLane];

    TDC_DEVICE static int first_row() { return thread_index() / 32 % WarpsM * kTilesM * 16; }
    TDC_DEVICE static int first_column() { return thread_index() / 32 / WarpsM * kTilesN * 8; }

    // The row of the block that RowPointers[i] points to.
    TDC_DEVICE static int row(int i) {
        return first_row() + i / Arithmetic::kRowsOfLane * 16 +
               Arithmetic::row(i % Arithmetic::kRowsOfLane);
    }

    // `columns` is the block's first column of a chunk. See the arithmetic's multiply.
    template <bool AreOperands, class Offset>
    TDC_DEVICE static void multiply(Sums& sums, const RowPointers& rows, Offset offset,
                                    const Element* columns, int vectors) {
        columns += first_column() * kChunkPitch * Arithmetic::kVector;
        Arithmetic::template multiply<AreOperands>(sums, rows, offset, columns, vectors);
    }

    // The column that row `i` of the columns in shared memory holds. Of each 16, the two sums that
    // a lane has in one tile and the two in the next belong to four neighbours, which are stored at
    // once.
    TDC_DEVICE static int column(int i) {
        return (i & ~15) | (i >> 1 & 3) << 2 | (i >> 3 & 1) << 1 | (i & 1);
    }

    // A thread's sums are kSumRows rows of kFours times four neighbouring columns.
    static constexpr int kSumRows = 2 * kTilesM, kFours = kTilesN / 2;
    TDC_DEVICE static int sum_row(int r) { return first_row() + r * 8 + lane_index() / 4; }
    TDC_DEVICE static int sum_column(int f) {
        return first_column() + f * 16 + lane_index() % 4 * 4;
    }
    TDC_DEVICE static float4 four(const Sums& sums, int r, int f) {
        const auto &a = sums[r / 2][f * 2], &b = sums[r / 2][f * 2 + 1];
        const int i = r % 2 * 2;
        return make_float4(a[i], a[i + 1], b[i], b[i + 1]);
    }

    // Gives `put(row, column, sums)` every four of them.
    template <class Put>
    TDC_DEVICE static void for_each_four(const Sums& sums, Put put) {
#pragma unroll
        for (int r = 0; r < kSumRows; ++r) {
#pragma unroll
            for (int f = 0; f < kFours; ++f) put(sum_row(r), sum_column(f), four(sums, r, f));
        }
    }

    // The same with bias and activation, for columns `column0` on that are below `end`.
    template <class Put>
    TDC_DEVICE static void for_each_activated(const Sums& sums, const void* bias, int column0,
                                              int end, float slope, Put put) {
        float4 biases[kFours];  // loaded together
#pragma unroll
        for (int f = 0; f < kFours; ++f) {
            const int column = column0 + sum_column(f);
            const auto* from = static_cast<const Element*>(bias) + column;
            biases[f] = Arithmetic::to_float(
                column < end ? *reinterpret_cast<const typename Arithmetic::Four*>(from)
                             : Arithmetic::no_four());
        }
#pragma unroll
        for (int r = 0; r < kSumRows; ++r) {
#pragma unroll
            for (int f = 0; f < kFours; ++f)
                put(sum_row(r), sum_column(f), leaky_relu(add(four(sums, r, f), biases[f]), slope));
        }
    }
};

// Blocks that a multiprocessor's registers shall hold at once: 128 registers for a thread, 168 on
// CUDA cores, whose operands stay in registers longer, and as many as it takes for 64 sums.
template <class Arithmetic, class... Tiles>
constexpr int blocks_of() {
    constexpr int kSums = std::max({Tiles::kTilesM * Tiles::kTilesN * 4 ...});
    constexpr int kThreads = std::max({Tiles::kThreads...});
    return kSums >= 64 ? 1 : (Arithmetic::kStep == 2 ? 512 : 384) / kThreads;
}

// Starts copying a vector to shared memory of which `count` elements are there (none if negative);
// zeros take the place of the others. An unaligned source is copied by plain loads.
template <class Arithmetic>
TDC_DEVICE void copy_vector(typename Arithmetic::Element* to,
                            const typename Arithmetic::Element* from, int count, bool aligned) {
    count = max(0, min(count, Arithmetic::kVector));
    if (aligned) {
        cp_async_16(to, from, count * static_cast<int>(sizeof *from));
        return;
    }
    float values[Arithmetic::kVector];  // all loads are under way before the first is stored
#pragma unroll
    for (int i = 0; i < Arithmetic::kVector; ++i)
        values[i] = i < count ? Arithmetic::load(from + i) : 0.0f;
#pragma unroll
    for (int i = 0; i < Arithmetic::kVector; i += 4)
        Arithmetic::store_four(to + i,
                               make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]));
}

// How the threads of a block share the copying of a chunk: each takes the same vector (part) of
// every kRows-th row.
template <class Arithmetic, int Threads>
struct ChunkCopies {
    using Element = typename Arithmetic::Element;
    static constexpr int kRows = Threads / kChunk;
    static_assert(kRows % 16 == 0, "WarpTiles::column leaves 16s together");

    TDC_DEVICE static int row() { return static_cast<int>(threadIdx.x / kChunk); }
    TDC_DEVICE static int part() { return static_cast<int>(threadIdx.x % kChunk); }

    // Where this thread's first vector goes, in a chunk that begins at row `row0` of the ring.
    TDC_DEVICE static Element* target(Element* ring, int row0) {
        return ring + ((row0 + row()) * kChunkPitch + part()) * Arithmetic::kVector;
    }
};

}  // namespace tdc
