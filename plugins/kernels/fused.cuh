// The fused Tucker chain: one launch, channel last.
//
// A block computes a tile of output pixels. Its T1 (with the halo that the kxk convolution needs)
// and T2 live in shared memory; X and the weights stream through a ring of buffers. Each stage is a
// product of matrices, done in passes of kColumns columns:
//
//   1. T1 [halo pixels, r_in]   = X    [halo pixels, C]            · first^T
//   2. T2 [tile pixels, r_out]  = T1   [tile pixels, taps · r_in]  · core^T, rows gathered from T1
//   3. Y  [tile pixels, M]      = T2   [tile pixels, r_out]        · last^T
//
// A step of the ring brings a chunk of columns, and in stage 1 of rows; the ring runs ahead across
// passes and stages, so that only the first chunk's latency is waited for.
//
// Maps too small to fill the device share a tile among `parts` blocks, each with a slice of r_in in
// stages 1 and 2. What they have of T2 is summed before its activation:
//   cluster  through distributed shared memory, every block a share; then each has all of T2 and
//            computes a slice of M
//   ticket   through the workspace, by the last block to arrive, which computes all of M. The sum
//            runs in the order of the slices, whoever comes last.
#pragma once

#include "kernels/epilogue.cuh"
#include "kernels/fused_layout.h"

namespace tdc::fused {

template <int TileH, int TileW, int Rows, int WarpsM, int WarpsN, int Columns, int Stages>
struct Config {
    static constexpr int kTileH = TileH, kTileW = TileW, kPixels = TileH * TileW, kRows = Rows;
    static constexpr int kWarpsM = WarpsM, kWarpsN = WarpsN, kThreads = 32 * WarpsM * WarpsN;
    static constexpr int kColumns = Columns, kStages = Stages;
};

// A chunk of a pass of a stage: what the ring is loading.
struct Step {
    int stage, row0, column0, chunk;
};

template <class Arithmetic, class Config>
class Block {
    using Element = typename Arithmetic::Element;
    template <int Rows>
    using TilesOf = WarpTiles<Arithmetic, Rows, Config::kColumns, Config::kWarpsM, Config::kWarpsN>;
    using HaloTiles = TilesOf<Config::kRows>;  // of stage 1
    using Tiles = TilesOf<Config::kPixels>;    // of stages 2 and 3
    static constexpr int kVector = Arithmetic::kVector;

  public:
    static constexpr int kBlocks = blocks_of<Arithmetic, HaloTiles, Tiles>();

    TDC_HOST_DEVICE static constexpr Sizes sizes() {
        return {Config::kTileH,   Config::kTileW,  Config::kRows,
                Config::kColumns, Config::kStages, Arithmetic::kVector};
    }

    TDC_DEVICE Block(const TuckerConvParams& params, const Layout& shapes, Split split_kind,
                     int part_count, uint4* shared)
        : p(params),
          layout(shapes),
          split(split_kind),
          parts(part_count),
          t1(elements(shared + layout.t1)),
          t2(elements(shared + layout.t2)),
          rows(elements(shared + layout.rows)),
          columns(elements(shared + layout.columns)),
          partial(reinterpret_cast<float*>(shared + layout.partial)),
          t1_offsets(reinterpret_cast<int*>(shared + layout.t1_offsets)),
          core_offsets(reinterpret_cast<int*>(shared + layout.core_offsets)),
          pixels(reinterpret_cast<int*>(shared + layout.pixels)),
          places(reinterpret_cast<int*>(shared + layout.places)) {
        const int tiles_w = ceil_div(p.w_out, Config::kTileW);
        const int tiles = ceil_div(p.h_out, Config::kTileH) * tiles_w;
        const int block = static_cast<int>(blockIdx.x);
        part = block % parts;
        tile = block / parts;
        image = tile / tiles;
        tile_y = tile % tiles / tiles_w * Config::kTileH;
        tile_x = tile % tiles_w * Config::kTileW;
        inside_y = max(0, p.pad_top - tile_y * p.stride_h);
        inside_x = max(0, p.pad_left - tile_x * p.stride_w);
        inside_w = max(0, min(layout.halo_w, p.w + p.pad_left - tile_x * p.stride_w) - inside_x);
        inside_pixels =
            inside_w * max(0, min(layout.halo_h, p.h + p.pad_top - tile_y * p.stride_h) - inside_y);
        slice_begin = p.r_in / 8 * part / parts * 8;
        slice_end = p.r_in / 8 * (part + 1) / parts * 8;
        slice_vectors = (slice_end - slice_begin) / kVector;
        const bool shares_m = split == Split::kCluster;
        const int m_units = ceil_div(p.m, 8);
        m_begin = shares_m ? m_units * part / parts * 8 : 0;
        m_end = shares_m ? m_units * (part + 1) / parts * 8 : m_units * 8;
    }

    TDC_DEVICE void run() {
        make_tables();
        __syncthreads();
        last_stage = split == Split::kTicket ? 2 : 3;
        // Padding beyond the kernel's reach leaves stage 1 nothing to do.
        start_ring(inside_pixels ? Step{1, 0, slice_begin, 0} : Step{2, 0, 0, 0});
        reduce();
        convolve();
        if constexpr (kArchitecture >= 90)
            if (split == Split::kCluster) meet_in_cluster();
        if (split == Split::kTicket) {
            if (!is_last_to_arrive()) return;
            last_stage = 3;
            start_ring({3, 0, m_begin, 0});
            sum_workspace();
        }
        expand();
    }

  private:
    TDC_DEVICE static Element* elements(uint4* shared) {
        return reinterpret_cast<Element*>(shared);
    }

    // For vector v of the summed index of stage 2, a tap and a channel of the slice: t1_offsets[v],
    // where it lies in T1, counted from the first tap; core_offsets[v], where in a row of core. For
    // the i-th pixel of the halo that is inside the image: pixels[i], which of the image's it is;
    // places[i], where it lies in T1. The others are the padding: zeros.
    TDC_DEVICE void make_tables() {
        const int count = p.kernel_h * p.kernel_w * slice_vectors;
#pragma unroll 1  // registers are for the products
        for (int v = thread_index(); v < round_up(count, kChunk); v += Config::kThreads) {
            const int tap = v / slice_vectors, channel = v % slice_vectors * kVector;
            const int y = tap / p.kernel_w * p.dilation_h, x = tap % p.kernel_w * p.dilation_w;
            // What is beyond the last vector meets zeros, and needs finite numbers.
            t1_offsets[v] = v < count ? layout.place(y, x, p.stride_w) * kVector + channel : 0;
            core_offsets[v] = v < count ? tap * p.r_out * p.r_in + slice_begin + channel : 0;
        }
        const int y0 = tile_y * p.stride_h - p.pad_top, x0 = tile_x * p.stride_w - p.pad_left;
#pragma unroll 1
        for (int i = thread_index(); i < inside_pixels; i += Config::kThreads) {
            const int y = inside_y + i / inside_w, x = inside_x + i % inside_w;
            pixels[i] = (y0 + y) * p.w + x0 + x;
            places[i] = layout.place(y, x, p.stride_w) * kVector;
        }
        if (inside_pixels < layout.halo_h * layout.halo_w) clear_t1();
    }

    TDC_DEVICE void clear_t1() {
        auto* const vectors = reinterpret_cast<uint4*>(t1);
#pragma unroll 1
        for (int i = thread_index(); i < layout.halo_h * layout.row_pitch; i += Config::kThreads)
            vectors[i] = make_uint4(0, 0, 0, 0);
    }

    // Stage 1: T1 for every pixel of the halo that is inside the image.
    TDC_DEVICE void reduce() {
        const int vectors = ceil_div(p.c, kVector);
        for (int row0 = 0; row0 < inside_pixels; row0 += Config::kRows) {
            for (int column0 = slice_begin; column0 < slice_end; column0 += Config::kColumns) {
                typename HaloTiles::Sums sums = {};
                pass<HaloTiles, false>(
                    sums, vectors, slice_end - column0,
                    [&](int i, int) {
                        const int row = slot * Config::kRows + HaloTiles::row(i);
                        return rows + row * kChunkPitch * kVector;
                    },
                    [](int v, int) { return v * kVector; });
                HaloTiles::for_each_activated(sums, p.first_bias, column0, slice_end, p.first_slope,
                                              [&](int row, int column, const float4& four) {
                                                  keep_t1(row0 + row, column0 + column, four);
                                              });
            }
        }
    }

    // Stage 2: T2, or this slice's part of it, for every pixel of the tile.
    TDC_DEVICE void convolve() {
        const int vectors = p.kernel_h * p.kernel_w * slice_vectors;
        for (int column0 = 0; column0 < p.r_out; column0 += Config::kColumns) {
            typename Tiles::Sums sums = {};
            pass<Tiles, true>(
                sums, vectors, p.r_out - column0,
                [&](int i, int) {
                    const int y = Tiles::row(i) / Config::kTileW * p.stride_h;
                    const int x = Tiles::row(i) % Config::kTileW;
                    return t1 + (y * layout.row_pitch + x * layout.t1_pitch) * kVector;
                },
                [&](int v, int chunk) { return t1_offsets[chunk * kChunk + v]; });
            keep_t2(sums, column0);
        }
    }

    // Stage 3: Y for every pixel of the tile that is in the image.
    TDC_DEVICE void expand() {
        const Epilogue<Arithmetic, Tiles> epilogue = {
            static_cast<Element*>(p.y), static_cast<const Element*>(p.residual),
            static_cast<const Element*>(p.bias), p.m, p.slope};
        const int vectors = p.r_out / kVector;
        for (int column0 = m_begin; column0 < m_end; column0 += Config::kColumns) {
            typename Tiles::Sums sums = {};
            pass<Tiles, true>(
                sums, vectors, m_end - column0,
                [&](int i, int chunk) {
                    return t2 + (Tiles::row(i) * layout.t2_pitch + chunk * kChunk) * kVector;
                },
                [](int v, int) { return v * kVector; });
            epilogue.store(sums, column0, m_end, [&](int row) -> long long {
                const int oy = tile_y + row / Config::kTileW, ox = tile_x + row % Config::kTileW;
                if (oy >= p.h_out || ox >= p.w_out) return -1;
                return (static_cast<long long>(image) * p.h_out + oy) * p.w_out + ox;
            });
        }
    }

    // A pass over `vectors` vectors of rows that begin at row_pointer(i, chunk) and have their
    // vector v of a chunk at offset(v, chunk). A warp with none of the pass's columns has no work.
    template <class PassTiles, bool AreOperands, class RowPointer, class Offset>
    TDC_DEVICE void pass(typename PassTiles::Sums& sums, int vectors, int pass_columns,
                         RowPointer row_pointer, Offset offset) {
        const bool has_work = PassTiles::first_column() < pass_columns;
        for (int chunk = 0; chunk < ceil_div(vectors, kChunk); ++chunk) {
            turn_ring();
            if (has_work) {
                const Element* pointers[PassTiles::kRowsOfLane];
#pragma unroll
                for (int i = 0; i < PassTiles::kRowsOfLane; ++i)
                    pointers[i] = row_pointer(i, chunk);
                PassTiles::template multiply<AreOperands>(
                    sums, pointers, [&](int v) { return offset(v, chunk); },
                    columns + slot * Config::kColumns * kChunkPitch * kVector,
                    vectors - chunk * kChunk);
            }
            slot = slot + 1 == Config::kStages ? 0 : slot + 1;
        }
    }

    // The ring: slot `slot` is multiplied while the kStages - 1 others are loaded.
    TDC_DEVICE void start_ring(const Step& step) {
        ahead = step;
        slot = ahead_slot = 0;
        for (int i = 0; i < Config::kStages - 1; ++i) load_ahead();
    }
    // Waits for the slot's chunk, and starts loading into the slot that everybody has done with.
    TDC_DEVICE void turn_ring() {
        cp_async_wait<Config::kStages - 2>();
        __syncthreads();
        load_ahead();
    }
    TDC_DEVICE void load_ahead() {
        if (ahead.stage <= last_stage) load();
        cp_async_commit();
    }

    TDC_DEVICE void load() {
        const int v = ahead.chunk * kChunk + Copies::part();
        // The matrix of weights, its rows' pitch, and how many of them and of their vectors the
        // stage takes; this thread's place in a row.
        const void* weights = p.last;
        int pitch = p.r_out, end = m_end, vectors = p.r_out / kVector, at = v * kVector;
        if (ahead.stage == 1) {
            load_pixels();
            weights = p.first;
            pitch = p.c, end = slice_end, vectors = ceil_div(p.c, kVector);
        } else if (ahead.stage == 2) {
            weights = p.core;
            pitch = p.r_in, end = p.r_out, vectors = p.kernel_h * p.kernel_w * slice_vectors;
            at = core_offsets[v];
        }
        const int count = v >= vectors ? 0 : ahead.stage == 2 ? kVector : pitch - at;
        load_columns(weights, at, pitch, ahead.stage == 3 ? min(p.m, end) : end, count);
        advance(vectors, end);
        ahead_slot = ahead_slot + 1 == Config::kStages ? 0 : ahead_slot + 1;
    }

    // To the next chunk: of this pass, of the next columns, of the next rows, of the next stage.
    TDC_DEVICE void advance(int vectors, int columns_end) {
        if (++ahead.chunk * kChunk < vectors) return;
        ahead.chunk = 0;
        if ((ahead.column0 += Config::kColumns) < columns_end) return;
        if (ahead.stage == 1 && (ahead.row0 += Config::kRows) < inside_pixels) {
            ahead.column0 = slice_begin;
        } else {
            ++ahead.stage;
            ahead.column0 = ahead.stage == 3 ? m_begin : 0;
        }
    }

    using Copies = ChunkCopies<Arithmetic, Config::kThreads>;
    static_assert(Config::kRows % Copies::kRows == 0 && Config::kColumns % Copies::kRows == 0,
                  "whole turns of all threads");

    // A chunk of X for kRows pixels of the halo.
    TDC_DEVICE void load_pixels() {
        const int pitch = Arithmetic::pitch(p.c);
        const int channel = (ahead.chunk * kChunk + Copies::part()) * kVector;
        const auto* x =
            static_cast<const Element*>(p.x) + static_cast<long long>(image) * p.h * p.w * pitch;
        const bool aligned = pitch % kVector == 0;
        Element* to = Copies::target(rows, ahead_slot * Config::kRows);
#pragma unroll
        for (int k = 0; k < Config::kRows; k += Copies::kRows) {
            const int i = ahead.row0 + Copies::row() + k;
            const bool there = i < inside_pixels && channel < p.c;
            copy_vector<Arithmetic>(to + k * kChunkPitch * kVector,
                                    there ? x + pixels[i] * pitch + channel : x,
                                    there ? p.c - channel : 0, aligned);
        }
    }

    // A chunk of a weight matrix whose rows, `pitch` apart, are columns of the product. This thread
    // has `count` elements from element `at` of a row on. Columns from `end` on become zeros, or
    // are left alone where no tile has any below it.
    TDC_DEVICE void load_columns(const void* weights, int at, int pitch, int end, int count) {
        const auto* w = static_cast<const Element*>(weights);
        const bool aligned = pitch % kVector == 0;
        Element* to = Copies::target(columns, ahead_slot * Config::kColumns);
#pragma unroll
        for (int k = 0; k < Config::kColumns; k += Copies::kRows) {
            if (ahead.column0 + (Copies::row() & ~15) + k >= end) break;
            const int column = ahead.column0 + Tiles::column(Copies::row()) + k;
            const bool there = column < end && count > 0;
            copy_vector<Arithmetic>(to + k * kChunkPitch * kVector,
                                    there ? w + column * pitch + at : w, there ? count : 0,
                                    aligned);
        }
    }

    TDC_DEVICE void keep_t1(int row, int column, const float4& values) {
        if (row >= inside_pixels || column >= slice_end) return;
        Arithmetic::store_four(t1 + places[row] + column - slice_begin,
                               Arithmetic::as_operand(values));
    }

    TDC_DEVICE void keep_t2(const typename Tiles::Sums& sums, int column0) {
        if (split == Split::kNone)
            Tiles::for_each_activated(sums, p.core_bias, column0, p.r_out, p.core_slope,
                                      [&](int row, int column, const float4& four) {
                                          keep_t2(row, column0 + column, four);
                                      });
        else
            Tiles::for_each_four(sums, [&](int row, int column, const float4& four) {
                keep_partial_t2(row, column0 + column, four);
            });
    }

    TDC_DEVICE void keep_t2(int row, int column, const float4& values) {
        if (column >= layout.t2_pitch * kVector) return;
        // A step reads beyond r_out.
        Arithmetic::store_four(t2_at(row, column), column < p.r_out ? Arithmetic::as_operand(values)
                                                                    : make_float4(0, 0, 0, 0));
    }

    TDC_DEVICE void keep_partial_t2(int row, int column, const float4& sums) {
        if (column >= p.r_out)
            keep_t2(row, column, sums);
        else
            *reinterpret_cast<float4*>(split == Split::kCluster ? partial_at(row, column)
                                                                : workspace(part, row, column)) =
                sums;
    }

    TDC_DEVICE Element* t2_at(int row, int column) const {
        return t2 + row * layout.t2_pitch * kVector + column;
    }
    TDC_DEVICE float* partial_at(int row, int column) const {
        return partial + row * layout.partial_pitch * 4 + column;
    }
    // In the fp32 sums of T2 [tiles, parts, kPixels, r_out].
    TDC_DEVICE float* workspace(int of_part, int row, int column) const {
        const long long slice = static_cast<long long>(tile) * parts + of_part;
        return static_cast<float*>(p.workspace) + (slice * Config::kPixels + row) * p.r_out +
               column;
    }

    // T2 from its sums over all slices.
    TDC_DEVICE float4 summed_t2(const float4& sums, int column) const {
        const auto* bias = static_cast<const Element*>(p.core_bias) + column;
        const auto four = *reinterpret_cast<const typename Arithmetic::Four*>(bias);
        return Arithmetic::as_operand(
            leaky_relu(add(sums, Arithmetic::to_float(four)), p.core_slope));
    }

    // Every block of the cluster sums its share of T2's elements and gives it to all.
    TDC_DEVICE void meet_in_cluster() {
        cluster_sync();
        const int share = Config::kPixels * p.r_out / 4 / parts;
#pragma unroll 1  // registers are for the products
        for (int i = share * part + thread_index(); i < share * (part + 1); i += Config::kThreads) {
            const int row = i * 4 / p.r_out, column = i * 4 % p.r_out;
            float4 sums = make_float4(0, 0, 0, 0);
#pragma unroll 4  // so many loads under way
            for (int other = 0; other < parts; ++other)
                sums = add(sums, *reinterpret_cast<const float4*>(cluster_shared(
                                     partial_at(row, column), static_cast<unsigned>(other))));
            const float4 values = summed_t2(sums, column);
#pragma unroll 1
            for (int other = 0; other < parts; ++other)
                Arithmetic::store_four(
                    cluster_shared(t2_at(row, column), static_cast<unsigned>(other)), values);
        }
        cluster_sync();
    }

    // True in the last block of the tile to arrive, which then sees the sums of all.
    TDC_DEVICE bool is_last_to_arrive() {
        int& ticket = places[layout.halo_h * layout.halo_w];
        __syncthreads();
        if (thread_index() == 0) {
            __threadfence();  // what the block has written is seen by whoever sees its ticket
            ticket = static_cast<int>(atomicAdd(p.counters + tile, 1u));
            if (ticket == parts - 1) p.counters[tile] = 0;  // for the next launch
            __threadfence();
        }
        __syncthreads();
        return ticket == parts - 1;
    }

    TDC_DEVICE void sum_workspace() {
#pragma unroll 1  // registers are for the products
        for (int i = thread_index() * 4; i < Config::kPixels * p.r_out; i += Config::kThreads * 4) {
            const int row = i / p.r_out, column = i % p.r_out;
            float4 sums = make_float4(0, 0, 0, 0);
#pragma unroll 4
            for (int other = 0; other < parts; ++other)
                sums = add(sums,
                           __ldcg(reinterpret_cast<const float4*>(workspace(other, row, column))));
            Arithmetic::store_four(t2_at(row, column), summed_t2(sums, column));
        }
    }

    const TuckerConvParams& p;
    const Layout& layout;
    const Split split;
    const int parts;
    Element* const t1;       // [halo_h, row_pitch]
    Element* const t2;       // [kPixels, t2_pitch]
    Element* const rows;     // [kStages, kRows, kChunkPitch]: X
    Element* const columns;  // [kStages, kColumns, kChunkPitch]: weights
    float* const partial;    // [kPixels, partial_pitch]
    int* const t1_offsets;
    int* const core_offsets;
    int* const pixels;  // [halo_h * halo_w]
    int* const places;  // [halo_h * halo_w], and the ticket
    int part, tile, image, tile_y, tile_x;
    int inside_y, inside_x, inside_w, inside_pixels;  // the halo's rectangle in the image
    int slice_begin, slice_end, slice_vectors;        // of r_in
    int m_begin, m_end;
    Step ahead;
    int slot, ahead_slot, last_stage;
};

template <class Arithmetic, class Config>
__global__ void __launch_bounds__(Config::kThreads, Block<Arithmetic, Config>::kBlocks)
    kernel(const TuckerConvParams params, const Layout layout, const Split split, const int parts) {
    TDC_DYNAMIC_SHARED(uint4, shared);
    if constexpr (kArchitecture >= 80)
        Block<Arithmetic, Config>(params, layout, split, parts, shared).run();
}

}  // namespace tdc::fused
