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
          pixels(params.n * params.h_out * params.w_out) {
        const int passes = ceil_div(Arithmetic::pitch(p.m), Config::kColumns);
        const int block = static_cast<int>(blockIdx.x);
        column0 = block % passes * Config::kColumns;
        row0 = block / passes * Config::kRows;
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
            const int pixel = row0 + i;
            const int of_image = p.h_out * p.w_out;
            const int at = pixel % of_image;
            places[i] =
                make_int4(pixel / of_image * p.h * p.w, at / p.w_out * p.stride_h - p.pad_top,
                          at % p.w_out * p.stride_w - p.pad_left, pixel < pixels);
        }
    }

    using Copies = ChunkCopies<Arithmetic, Config::kThreads>;
    static_assert(Config::kRows % Copies::kRows == 0 && Config::kColumns % Copies::kRows == 0,
                  "whole turns of all threads");

    // Starts loading a chunk, if there is one, into its slot.
    TDC_DEVICE void load(int chunk) {
        const int v = chunk * kChunk + Copies::part();
        if (chunk * kChunk < vectors) {
            const int slot = chunk % Config::kStages;
            const int tap = v / vectors_of_tap, channel = v % vectors_of_tap * kVector;
            const int count = v < vectors ? p.c - channel : 0;
            load_rows(tap, channel, count, Copies::target(rows, slot * Config::kRows));
            load_columns(tap, channel, count, Copies::target(columns, slot * Config::kColumns));
        }
        cp_async_commit();
    }

    TDC_DEVICE void load_rows(int tap, int channel, int count, Element* to) {
        const int dy = tap / p.kernel_w * p.dilation_h, dx = tap % p.kernel_w * p.dilation_w;
        const auto* x = static_cast<const Element*>(p.x);
        const bool aligned = p.x_pitch % kVector == 0;
#pragma unroll
        for (int k = 0; k < Config::kRows; k += Copies::kRows) {
            const int4 place = places[Copies::row() + k];
            const int y = place.y + dy, xx = place.z + dx;
            const bool there = place.w && count > 0 && y >= 0 && y < p.h && xx >= 0 && xx < p.w;
            const long long at = static_cast<long long>(place.x + y * p.w + xx) * p.x_pitch;
            copy_vector<Arithmetic>(to + k * kChunkPitch * kVector, there ? x + at + channel : x,
                                    there ? count : 0, aligned);
        }
    }

    TDC_DEVICE void load_columns(int tap, int channel, int count, Element* to) {
        const auto* w = static_cast<const Element*>(p.weights);
        const bool aligned = p.c % kVector == 0;
#pragma unroll
        for (int k = 0; k < Config::kColumns; k += Copies::kRows) {
            if (column0 + (Copies::row() & ~15) + k >= p.m) break;  // no tile has a column there
            const int column = column0 + Tiles::column(Copies::row()) + k;
            const bool there = column < p.m && count > 0;
            const long long at = static_cast<long long>(tap * p.m + column) * p.c;
            copy_vector<Arithmetic>(to + k * kChunkPitch * kVector, there ? w + at + channel : w,
                                    there ? count : 0, aligned);
        }
    }

    TDC_DEVICE void multiply(typename Tiles::Sums& sums, int chunk) {
        if (column0 + Tiles::first_column() >= p.m) return;
        const int slot = chunk % Config::kStages;
        const Element* pointers[Tiles::kRowsOfLane];
#pragma unroll
        for (int i = 0; i < Tiles::kRowsOfLane; ++i)
            pointers[i] = rows + (slot * Config::kRows + Tiles::row(i)) * kChunkPitch * kVector;
        Tiles::template multiply<false>(
            sums, pointers, [](int v) { return v * kVector; },
            columns + slot * Config::kColumns * kChunkPitch * kVector, vectors - chunk * kChunk);
    }

    TDC_DEVICE void store(const typename Tiles::Sums& sums) {
        const Epilogue<Arithmetic, Tiles> epilogue = {
            static_cast<Element*>(p.y), static_cast<const Element*>(p.residual),
            static_cast<const Element*>(p.bias), p.m, p.slope};
        epilogue.store(sums, column0, column0 + Config::kColumns,
                       [&](int row) -> long long { return row0 + row < pixels ? row0 + row : -1; });
    }

    const ConvParams& p;
    Element* const rows;     // [kStages, kRows, kChunkPitch]
    Element* const columns;  // [kStages, kColumns, kChunkPitch]
    int4* const places;      // [kRows]
    const int vectors_of_tap, vectors;
    const int pixels;
    int column0, row0;
};

template <class Arithmetic, class Config>
__global__ void __launch_bounds__(Config::kThreads, Block<Arithmetic, Config>::kBlocks)
    kernel(const ConvParams params) {
    TDC_DYNAMIC_SHARED(uint4, shared);
    if constexpr (kArchitecture >= 80) Block<Arithmetic, Config>(params, shared).run();
}

}  // namespace tdc::unfused
