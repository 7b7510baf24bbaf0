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

    // Stores the sums of channels `column` (even) and `column + 1` of a pixel. The lanes between
    // the channels and their pitch become zeros; there is nothing beyond.
    TDC_DEVICE void put(long long pixel, int column, float x, float next) const {
        const int pitch = Arithmetic::pitch(channels);
        if (column >= pitch) return;
        const long long at = pixel * pitch + column;
        x = result(x, at, column);
        next = result(next, at + 1, column + 1);
        if (pitch % 2 == 0) {
            Arithmetic::store_pair(y + at, x, next);
        } else {
            Arithmetic::store(y + at, x);
            if (column + 1 < pitch) Arithmetic::store(y + at + 1, next);
        }
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
