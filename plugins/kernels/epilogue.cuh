// What becomes of a sum: bias, residual, activation, and its place in a channel-last tensor.
#pragma once

#include "kernels/arithmetic.cuh"

namespace tdc {

template <class Arithmetic>
struct Epilogue {
    using Element = typename Arithmetic::Element;

    Element* y;               // [pixels, pitch(channels)]
    const Element* residual;  // as y, or null
    const Element* bias;      // [channels]
    int channels;
    float slope;

    // Stores the sums of four channels of a pixel, from `column` (a multiple of 4) on. The lanes
    // between the channels and their pitch become zeros; there is nothing beyond.
    TDC_DEVICE void put(long long pixel, int column, float4 sums) const {
        const int pitch = Arithmetic::pitch(channels);
        if (column >= pitch) return;
        const long long at = pixel * pitch + column;
        if (column + 4 <= channels && pitch % 4 == 0) {
            sums = add(sums, Arithmetic::load_four(bias + column));
            if (residual) sums = add(sums, Arithmetic::load_four(residual + at));
            Arithmetic::store_four(y + at, leaky_relu(sums, slope));
            return;
        }
        const float values[] = {sums.x, sums.y, sums.z, sums.w};
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (column + i < pitch)
                Arithmetic::store(y + at + i, result(values[i], at + i, column + i));
    }

  private:
    TDC_DEVICE float result(float sum, long long at, int column) const {
        if (column >= channels) return 0;
        sum += Arithmetic::load(bias + column);
        if (residual) sum += Arithmetic::load(residual + at);
        return leaky_relu(sum, slope);
    }
};

}  // namespace tdc
