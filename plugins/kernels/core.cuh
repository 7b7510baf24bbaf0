// TDC's core convolution (PPoPP 2023): fp32 on CUDA cores, channel first.
//
// A block computes a tile of output pixels for all output channels, summed over `channels` of the
// input channels, whose tile with halo lies in shared memory. A thread computes one output channel:
// its sums stay in registers, and all threads read the same input at the same time. Blocks of one
// tile add their sums to Y by atomicAdd, so the order of that sum, and with it the last places of
// the result, may change from run to run.
//
// Beyond the paper's 3x3 kernel for one image, this one takes any batch, channels, kernel, stride
// and dilation, more output channels than a block has threads, and weights in either order.
#pragma once

#include "kernels/arithmetic.cuh"
#include "kernels/channel_first_launch.h"

namespace tdc::core {

constexpr int kMostThreads = 256;  // a thread may then have 255 registers

// Kernel is 3 for a 3x3 kernel with strides and dilations of 1, and 0 for any other.
template <int TileH, int TileW, int Kernel, WeightOrder Order>
class Block {
  public:
    TDC_DEVICE Block(const CoreParams& params, int channels_of_block, float* shared)
        : p(params), halo(params, TileH, TileW), channels(channels_of_block), tile(shared) {
        const int tiles_w = ceil_div(p.w_out, TileW), tiles = ceil_div(p.h_out, TileH) * tiles_w;
        const int block = static_cast<int>(blockIdx.x);
        image = block / tiles;
        tile_y = block % tiles / tiles_w * TileH;
        tile_x = block % tiles_w * TileW;
        first_channel = static_cast<int>(blockIdx.y) * channels;
    }

    TDC_DEVICE void run() {
        load();
        __syncthreads();
        for (int m = thread_index(); m < p.m; m += static_cast<int>(blockDim.x)) convolve(m);
    }

  private:
    static constexpr int kGroup = Order == WeightOrder::kOperator ? 4 : 1;  // channels at a time

    // The input tile [channels, halo.h, halo.w]; zeros outside the image and beyond the last
    // channel.
    TDC_DEVICE void load() {
        const int size = halo.h * halo.w;
        for (int i = thread_index(); i < channels * size; i += static_cast<int>(blockDim.x)) {
            const int c = first_channel + i / size;
            const int y = tile_y * p.stride_h - p.pad_top + i % size / halo.w;
            const int x = tile_x * p.stride_w - p.pad_left + i % halo.w;
            const bool there = c < p.c && y >= 0 && y < p.h && x >= 0 && x < p.w;
            const long long plane = static_cast<long long>(image) * p.c + c;
            tile[i] = there ? p.x[(plane * p.h + y) * p.w + x] : 0.0f;
        }
    }

    TDC_DEVICE void convolve(int m) {
        float sums[TileH][TileW] = {};
        const int end = min(channels, p.c - first_channel);
        for (int c = 0; c < end; c += kGroup) {
            if constexpr (Kernel == 0)
                add_any(sums, c, m);
            else
                add_unrolled(sums, c, m);
        }
        add_to_output(sums, m);
    }

    // One group of channels. Unrolled over the taps, a channel's input is read once for all.
    TDC_DEVICE void add_unrolled(float (&sums)[TileH][TileW], int c, int m) const {
        constexpr int kHaloW = TileW + Kernel - 1, kHaloH = TileH + Kernel - 1;
        float weights[Kernel * Kernel][kGroup];
#pragma unroll
        for (int tap = 0; tap < Kernel * Kernel; ++tap) load_weights(weights[tap], tap, c, m);
#pragma unroll
        for (int j = 0; j < kGroup; ++j) {
            const float* plane = tile + (c + j) * kHaloH * kHaloW;
#pragma unroll
            for (int tap = 0; tap < Kernel * Kernel; ++tap)
#pragma unroll
                for (int i = 0; i < TileH * TileW; ++i)
                    sums[i / TileW][i % TileW] +=
                        plane[(i / TileW + tap / Kernel) * kHaloW + i % TileW + tap % Kernel] *
                        weights[tap][j];
        }
    }

    TDC_DEVICE void add_any(float (&sums)[TileH][TileW], int c, int m) const {
        for (int tap = 0; tap < p.kernel_h * p.kernel_w; ++tap) {
            float weights[kGroup];
            load_weights(weights, tap, c, m);
            const float* corner = tile + c * halo.h * halo.w +
                                  tap / p.kernel_w * p.dilation_h * halo.w +
                                  tap % p.kernel_w * p.dilation_w;
#pragma unroll
            for (int j = 0; j < kGroup; ++j)
#pragma unroll
                for (int i = 0; i < TileH * TileW; ++i)
                    sums[i / TileW][i % TileW] +=
                        corner[(j * halo.h + i / TileW * p.stride_h) * halo.w +
                               i % TileW * p.stride_w] *
                        weights[j];
        }
    }

    // The weights of one tap for a group of channels; zeros for channels that there are not.
    TDC_DEVICE void load_weights(float (&weights)[kGroup], int tap, int channel, int m) const {
        const int c = first_channel + channel, taps = p.kernel_h * p.kernel_w;
        if constexpr (Order == WeightOrder::kPaper) {
            weights[0] = p.weights[(static_cast<long long>(c) * taps + tap) * p.m + m];
        } else {
            const float* from = p.weights + (static_cast<long long>(tap) * p.m + m) * p.c + c;
            if (p.c % kGroup == 0) {
                const float4 four = *reinterpret_cast<const float4*>(from);
                weights[0] = four.x, weights[1] = four.y;
                weights[2] = four.z, weights[3] = four.w;
                return;
            }
#pragma unroll
            for (int j = 0; j < kGroup; ++j) weights[j] = c + j < p.c ? from[j] : 0.0f;
        }
    }

    TDC_DEVICE void add_to_output(const float (&sums)[TileH][TileW], int m) const {
        const long long plane = static_cast<long long>(image) * p.m + m;
#pragma unroll
        for (int i = 0; i < TileH * TileW; ++i) {
            const int y = tile_y + i / TileW, x = tile_x + i % TileW;
            if (y < p.h_out && x < p.w_out)
                atomicAdd(p.y + (plane * p.h_out + y) * p.w_out + x, sums[i / TileW][i % TileW]);
        }
    }

    const CoreParams& p;
    const Halo halo;
    const int channels;  // a multiple of kGroup
    float* const tile;
    int image, tile_y, tile_x, first_channel;
};

template <int TileH, int TileW, int Kernel, WeightOrder Order>
__global__ void __launch_bounds__(kMostThreads, 1)
    kernel(const CoreParams params, const int channels) {
    TDC_DYNAMIC_SHARED(float, shared);
    Block<TileH, TileW, Kernel, Order>(params, channels, shared).run();
}

}  // namespace tdc::core
