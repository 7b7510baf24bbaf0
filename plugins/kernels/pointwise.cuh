// A 1x1 convolution, fp32 on CUDA cores, channel first:
//
//     Y[m, pixel] = lrelu(sum over c of weights[m, c] · X'[c, pixel] + bias[m] [+ R[m, pixel]])
//
// X' is X, or lrelu(X + input_bias): what the core kernel leaves out of T2. A block computes
// kTile channels by kTile pixels of one image.
#pragma once

#include "kernels/arithmetic.cuh"
#include "kernels/channel_first_launch.h"

namespace tdc::pointwise {

class Block {
  public:
    TDC_DEVICE Block(const Params& params, float* shared)
        : p(params), weights(shared), inputs(shared + kDepth * kPitch) {
        const int tiles = ceil_div(p.pixels, kTile), block = static_cast<int>(blockIdx.x);
        image = block / tiles;
        pixel0 = block % tiles * kTile;
        m0 = static_cast<int>(blockIdx.y) * kTile;
    }

    TDC_DEVICE void run() {
        set_zeros();
        float sums[kPerThread][kPerThread] = {};
        for (int c0 = 0; c0 < p.c; c0 += kDepth) {
            load_weights(c0);
            load_inputs(c0);
            __syncthreads();
            multiply(sums);
            __syncthreads();
        }
        store(sums);
    }

  private:
    TDC_DEVICE void set_zeros() const {
        const long long block = static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x;
        const long long step = static_cast<long long>(gridDim.x) * gridDim.y * kThreads;
        for (long long i = block * kThreads + thread_index(); i < p.zero_count; i += step)
            p.zeros[i] = 0;
    }

    // [kDepth, kTile], channels of Y in a row.
    TDC_DEVICE void load_weights(int c0) {
        for (int i = thread_index(); i < kDepth * kTile; i += kThreads) {
            const int m = m0 + i / kDepth, c = c0 + i % kDepth;
            weights[i % kDepth * kPitch + i / kDepth] =
                m < p.m && c < p.c ? p.weights[static_cast<long long>(m) * p.c + c] : 0.0f;
        }
    }

    // [kDepth, kTile], pixels in a row.
    TDC_DEVICE void load_inputs(int c0) {
        for (int i = thread_index(); i < kDepth * kTile; i += kThreads) {
            const int c = c0 + i / kTile, pixel = pixel0 + i % kTile;
            float value = 0;
            if (c < p.c && pixel < p.pixels) {
                value = p.x[(static_cast<long long>(image) * p.c + c) * p.pixels + pixel];
                if (p.input_bias) value = leaky_relu(value + p.input_bias[c], p.input_slope);
            }
            inputs[i / kTile * kPitch + i % kTile] = value;
        }
    }

    TDC_DEVICE void multiply(float (&sums)[kPerThread][kPerThread]) const {
#pragma unroll
        for (int k = 0; k < kDepth; ++k) {
            const float4 w =
                *reinterpret_cast<const float4*>(weights + k * kPitch + row() * kPerThread);
#pragma unroll
            for (int j = 0; j < kPerThread; ++j) {
                const float x = inputs[k * kPitch + column() + j * kSide];
                sums[0][j] += w.x * x;
                sums[1][j] += w.y * x;
                sums[2][j] += w.z * x;
                sums[3][j] += w.w * x;
            }
        }
    }

    TDC_DEVICE void store(const float (&sums)[kPerThread][kPerThread]) const {
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
            const int m = m0 + row() * kPerThread + i;
            if (m >= p.m) return;
            const long long plane = (static_cast<long long>(image) * p.m + m) * p.pixels;
#pragma unroll
            for (int j = 0; j < kPerThread; ++j) {
                const int pixel = pixel0 + column() + j * kSide;
                if (pixel >= p.pixels) continue;
                float sum = sums[i][j] + p.bias[m];
                if (p.residual) sum += p.residual[plane + pixel];
                p.y[plane + pixel] = leaky_relu(sum, p.slope);
            }
        }
    }

    TDC_DEVICE static int row() { return thread_index() / kSide; }
    TDC_DEVICE static int column() { return thread_index() % kSide; }

    const Params& p;
    float* const weights;
    float* const inputs;
    int image, pixel0, m0;
};

__global__ void __launch_bounds__(kThreads) kernel(const Params params) {
    TDC_DYNAMIC_SHARED(float, shared);
    Block(params, shared).run();
}

}  // namespace tdc::pointwise
