// What becomes of the sums of a pass: bias, residual, activation, and their place in a channel-last
// tensor.
#pragma once

#include "kernels/arithmetic.cuh"

namespace tdc {

template <class Arithmetic, class Tiles>
struct Epilogue {
    using Element = typename Arithmetic::Element;
    using Four = typename Arithmetic::Four;
    using Sums = typename Tiles::Sums;

    Element* y;               // [pixels, pitch(channels)]
    const Element* residual;  // as y, or null
    const Element* bias;      // [channels]
    int channels;
    float slope;

    // Stores a block's sums of channels `column0` on, below `column_end` (a multiple of 8 unless it
    // is the last). pixel_of(row) is the pixel of a row of the block, or -1. The lanes between the
    // channels and their pitch become zeros.
    template <class PixelOf>
    TDC_DEVICE void store(const Sums& sums, int column0, int column_end, PixelOf pixel_of) const {
        column_end = min(column_end, Arithmetic::pitch(channels));
        if (channels % 4 == 0) {
            store_fours(sums, column0, column_end, pixel_of);
            return;
        }
        Tiles::for_each_four(sums, [&](int row, int column, const float4& four) {
            const long long pixel = pixel_of(row);
            const float values[] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (pixel >= 0 && column0 + column + i < column_end)
                    store_one(pixel * Arithmetic::pitch(channels), column0 + column + i, values[i]);
        });
    }

  private:
    // All is loaded before anything is stored, so that latencies overlap.
    template <class PixelOf>
    TDC_DEVICE void store_fours(const Sums& sums, int column0, int column_end,
                                PixelOf pixel_of) const {
        Four biases[Tiles::kFours], residuals[Tiles::kSumRows][Tiles::kFours];
        long long lines[Tiles::kSumRows];
#pragma unroll
        for (int f = 0; f < Tiles::kFours; ++f) {
            const int column = column0 + Tiles::sum_column(f);
            biases[f] = load(bias, column, column < channels);
        }
#pragma unroll
        for (int r = 0; r < Tiles::kSumRows; ++r) {
            const long long pixel = pixel_of(Tiles::sum_row(r));
            lines[r] = pixel * Arithmetic::pitch(channels);
#pragma unroll
            for (int f = 0; f < Tiles::kFours; ++f) {
                const int column = column0 + Tiles::sum_column(f);
                const bool there = residual && pixel >= 0 && column < min(channels, column_end);
                residuals[r][f] = load(residual, lines[r] + column, there);
            }
        }
#pragma unroll
        for (int r = 0; r < Tiles::kSumRows; ++r) {
#pragma unroll
            for (int f = 0; f < Tiles::kFours; ++f) {
                const int column = column0 + Tiles::sum_column(f);
                if (lines[r] < 0 || column >= column_end) continue;
                const float4 sum =
                    add(add(Tiles::four(sums, r, f), Arithmetic::to_float(biases[f])),
                        Arithmetic::to_float(residuals[r][f]));
                Arithmetic::store_four(y + lines[r] + column, column < channels
                                                                  ? leaky_relu(sum, slope)
                                                                  : make_float4(0, 0, 0, 0));
            }
        }
    }

    TDC_DEVICE static Four load(const Element* from, long long at, bool there) {
        return there ? *reinterpret_cast<const Four*>(from + at) : Arithmetic::no_four();
    }

    TDC_DEVICE void store_one(long long line, int column, float sum) const {
        if (column < channels) {
            sum += Arithmetic::load(bias + column);
            if (residual) sum += Arithmetic::load(residual + line + column);
            sum = leaky_relu(sum, slope);
        } else {
            sum = 0;
        }
        Arithmetic::store(y + line + column, sum);
    }
};

}  // namespace tdc
