// One convolution as a matrix product, channel last: the unfused chain runs it three times.
//
//   Y [pixels, M] = X [pixels, taps · C, gathered] · weights^T
//
// A block computes kRows pixels (of all images, in order) by kColumns channels. Chunks of X and of
// the weights stream through a ring of buffers.
#pragma once

#include "kernels/epilogue.cuh"
#include "kernels/unfused_layout.h"

namespace tdc::unfused {

template <int Rows, int Columns, int WarpsM, int WarpsN, int Stages>
struct Config {
    static constexpr int kRows = Rows, kColumns = Columns, kStages = Stages;
    static constexpr int kWarpsM = WarpsM, kWarpsN = WarpsN, kThreads = 32 * WarpsM * WarpsN;
};

template <class Arithmetic, class Config>
class Block {
    using Element = typename Arithmetic::Element;
    using Tiles =
        WarpTiles<Arithmetic, Config::kRows, Config::kColumns, Config::kWarpsM, Config::kWarpsN>;
    static constexpr int kVector = Arithmetic::kVector;

  public:
    static constexpr int kBlocks = blocks_of<Arithmetic, Tiles>();

    TDC_HOST_DEVICE static constexpr Sizes sizes() {
        return {Config::kRows, Config::kColumns, Config::kStages, Arithmetic::kVector};
    }

    TDC_DEVICE Block(const ConvParams& params, uint4* shared)
        : p(params),
          rows(reinterpret_cast<Element*>(shared + Layout(sizes()).rows)),
          columns(reinterpret_cast<Element*>(shared + Layout(sizes()).columns)),
          places(reinterpret_cast<int4*>(shared + Layout(sizes()).places)),
          vectors_of_tap(ceil_div(params.c, kVector)),
          vectors(params.kernel_h * params.kernel_w * vectors_of_tap),
          pixels(static_cast<long long>(params.n) * params.h_out * params.w_out) {
        const int passes = ceil_div(Arithmetic::pitch(p.m), Config::kColumns);
        const int block = static_cast<int>(blockIdx.x);
        column0 = block % passes * Config::kColumns;
        row0 = static_cast<long long>(block / passes) * Config::kRows;
    }

    TDC_DEVICE void run() {
        find_places();
        __syncthreads();
        for (int chunk = 0; chunk < Config::kStages - 1; ++chunk) load(chunk);
        typename Tiles::Sums sums = {};
        for (int chunk = 0; chunk < ceil_div(vectors, kChunk); ++chunk) {
            cp_async_wait<Config::kStages - 2>();
            __syncthreads();
            load(chunk + Config::kStages - 1);
            multiply(sums, chunk);
        }
        store(sums);
    }

  private:
    // places[row]: the pixel (0, 0) of its image, where its window begins in it, and whether there
    // is such a row.
    TDC_DEVICE void find_places() {
        for (int i = thread_index(); i < Config::kRows; i += Config::kThreads) {
            const long long pixel = row0 + i;
            const int of_image = p.h_out * p.w_out;
            const int at = static_cast<int>(pixel % of_image);
            places[i] = make_int4(static_cast<int>(pixel / of_image) * p.h * p.w,
                                  at / p.w_out * p.stride_h - p.pad_top,
                                  at % p.w_out * p.stride_w - p.pad_left, pixel < pixels);
        }
    }

    // Starts loading a chunk, if there is one, into its slot.
    TDC_DEVICE void load(int chunk) {
        if (chunk * kChunk < vectors) {
            const int slot = chunk % Config::kStages;
            load_rows(chunk, rows + slot * Config::kRows * kChunkPitch * kVector);
            load_columns(chunk, columns + slot * Config::kColumns * kChunkPitch * kVector);
        }
        cp_async_commit();
    }

    // A thread's vectors of a chunk all have the same place in the summed index.
    TDC_DEVICE void load_rows(int chunk, Element* to) {
        const int v = chunk * kChunk + thread_index() % kChunk;
        const int tap = v / vectors_of_tap, channel = v % vectors_of_tap * kVector;
        const int dy = tap / p.kernel_w * p.dilation_h, dx = tap % p.kernel_w * p.dilation_w;
        const auto* x = static_cast<const Element*>(p.x);
        const bool aligned = p.x_pitch % kVector == 0;
        for (int i = thread_index(); i < Config::kRows * kChunk; i += Config::kThreads) {
            const int4 place = places[i / kChunk];
            const int y = place.y + dy, xx = place.z + dx;
            const bool there = place.w && v < vectors && y >= 0 && y < p.h && xx >= 0 && xx < p.w;
            const long long at = (place.x + static_cast<long long>(y) * p.w + xx) * p.x_pitch;
            copy_vector<Arithmetic>(to + slot_offset(i), there ? x + at + channel : x,
                                    there ? p.c - channel : 0, aligned);
        }
    }

    TDC_DEVICE void load_columns(int chunk, Element* to) {
        const int v = chunk * kChunk + thread_index() % kChunk;
        const int tap = v / vectors_of_tap, channel = v % vectors_of_tap * kVector;
        const auto* w = static_cast<const Element*>(p.weights);
        const bool aligned = p.c % kVector == 0;
        for (int i = thread_index(); i < Config::kColumns * kChunk; i += Config::kThreads) {
            const int column = column0 + Tiles::column(i / kChunk);
            const bool there = column < p.m && v < vectors;
            const long long at = (static_cast<long long>(tap) * p.m + column) * p.c + channel;
            copy_vector<Arithmetic>(to + slot_offset(i), there ? w + at : w,
                                    there ? p.c - channel : 0, aligned);
        }
    }

    TDC_DEVICE static int slot_offset(int i) {
        return (i / kChunk * kChunkPitch + i % kChunk) * kVector;
    }

    TDC_DEVICE void multiply(typename Tiles::Sums& sums, int chunk) {
        const int slot = chunk % Config::kStages;
        const Element* pointers[Tiles::kRowsOfLane];
#pragma unroll
        for (int i = 0; i < Tiles::kRowsOfLane; ++i)
            pointers[i] = rows + (slot * Config::kRows + Tiles::row(i)) * kChunkPitch * kVector;
        Tiles::multiply(
            sums, pointers, [](int v) { return v * kVector; },
            columns + slot * Config::kColumns * kChunkPitch * kVector, vectors - chunk * kChunk);
    }

    TDC_DEVICE void store(const typename Tiles::Sums& sums) {
        const Epilogue<Arithmetic> epilogue = {static_cast<Element*>(p.y),
                                               static_cast<const Element*>(p.residual),
                                               static_cast<const Element*>(p.bias), p.m, p.slope};
        Tiles::for_each_four(sums, [&](int row, int column, const float4& four) {
            if (row0 + row < pixels) epilogue.put(row0 + row, column0 + column, four);
        });
    }

    const ConvParams& p;
    Element* const rows;     // [kStages, kRows, kChunkPitch]
    Element* const columns;  // [kStages, kColumns, kChunkPitch]
    int4* const places;      // [kRows]
    const int vectors_of_tap, vectors;
    const long long pixels;
    int column0;
    long long row0;
};

template <class Arithmetic, class Config>
__global__ void __launch_bounds__(Config::kThreads, Block<Arithmetic, Config>::kBlocks)
    kernel(const ConvParams params) {
    TDC_DYNAMIC_SHARED(uint4, shared);
    if constexpr (kArchitecture >= 80) Block<Arithmetic, Config>(params, shared).run();
}

}  // namespace tdc::unfused
