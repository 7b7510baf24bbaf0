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

    TDC_DEVICE Block(const TuckerConvParams& params, Split split_kind, int part_count,
                     uint4* shared)
        : p(params),
          split(split_kind),
          parts(part_count),
          layout(params, sizes(), split_kind, part_count),
          t1(elements(shared + layout.t1)),
          t2(elements(shared + layout.t2)),
          rows(elements(shared + layout.rows)),
          columns(elements(shared + layout.columns)),
          partial(reinterpret_cast<float*>(shared + layout.partial)),
          offsets(reinterpret_cast<int*>(shared + layout.offsets)),
          pixels(reinterpret_cast<int*>(shared + layout.pixels)),
          t1_rows(reinterpret_cast<int*>(shared + layout.t1_rows)) {
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
        const int halo_h = layout.halo_pixels / layout.halo_w;
        inside_pixels =
            inside_w * max(0, min(halo_h, p.h + p.pad_top - tile_y * p.stride_h) - inside_y);
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
            if (!meet_in_workspace()) return;
            last_stage = 3;
            start_ring({3, 0, m_begin, 0});
        }
        expand();
    }

  private:
    TDC_DEVICE static Element* elements(uint4* shared) {
        return reinterpret_cast<Element*>(shared);
    }

    // offsets[v]: where vector v of a row of stage 2 (a tap, and a channel of the slice) lies in
    // T1, from its first tap on. For the i-th pixel of the halo that is inside the image,
    // pixels[i]: which of the image's it is; t1_rows[i]: which of T1's rows. The rows of the others
    // are the padding: zeros.
    TDC_DEVICE void make_tables() {
        const int count = p.kernel_h * p.kernel_w * slice_vectors;
#pragma unroll 1  // registers are for the products
        for (int v = thread_index(); v < round_up(count, kChunk); v += Config::kThreads) {
            const int tap = v / slice_vectors;
            const int y = tap / p.kernel_w * p.dilation_h, x = tap % p.kernel_w * p.dilation_w;
            const int row = y * layout.halo_w + x;
            // What is beyond the last vector meets zeros, and needs finite numbers.
            offsets[v] = v < count ? (row * layout.t1_pitch + v % slice_vectors) * kVector : 0;
        }
        const int y0 = tile_y * p.stride_h - p.pad_top, x0 = tile_x * p.stride_w - p.pad_left;
#pragma unroll 1
        for (int i = thread_index(); i < inside_pixels; i += Config::kThreads) {
            const int y = inside_y + i / inside_w, x = inside_x + i % inside_w;
            pixels[i] = (y0 + y) * p.w + x0 + x;
            t1_rows[i] = y * layout.halo_w + x;
        }
        if (inside_pixels < layout.halo_pixels) clear_t1();
    }

    TDC_DEVICE void clear_t1() {
        auto* const vectors = reinterpret_cast<uint4*>(t1);
#pragma unroll 1
        for (int i = thread_index(); i < layout.halo_pixels * layout.t1_pitch;
             i += Config::kThreads)
            vectors[i] = make_uint4(0, 0, 0, 0);
    }

    // Stage 1: T1 for every pixel of the halo that is inside the image.
    TDC_DEVICE void reduce() {
        const int vectors = ceil_div(p.c, kVector);
        for (int row0 = 0; row0 < inside_pixels; row0 += Config::kRows) {
            for (int column0 = slice_begin; column0 < slice_end; column0 += Config::kColumns) {
                typename HaloTiles::Sums sums = {};
                pass<HaloTiles>(sums, vectors, [&](int i, int) {
                    const int row = slot * Config::kRows + HaloTiles::row(i);
                    return rows + row * kChunkPitch * kVector;
                });
                HaloTiles::for_each_four(sums, [&](int row, int column, const float4& four) {
                    keep_t1(row0 + row, column0 + column, four);
                });
            }
        }
    }

    // Stage 2: T2, or this slice's part of it, for every pixel of the tile.
    TDC_DEVICE void convolve() {
        const Element* pixel_rows[Tiles::kRowsOfLane];
#pragma unroll
        for (int i = 0; i < Tiles::kRowsOfLane; ++i) {
            const int y = Tiles::row(i) / Config::kTileW * p.stride_h;
            const int x = Tiles::row(i) % Config::kTileW * p.stride_w;
            pixel_rows[i] = t1 + (y * layout.halo_w + x) * layout.t1_pitch * kVector;
        }
        const int vectors = p.kernel_h * p.kernel_w * slice_vectors;
        for (int column0 = 0; column0 < p.r_out; column0 += Config::kColumns) {
            typename Tiles::Sums sums = {};
            pass_gathered(sums, vectors, pixel_rows);
            Tiles::for_each_four(sums, [&](int row, int column, const float4& four) {
                keep_t2(row, column0 + column, four);
            });
        }
    }

    // Stage 3: Y for every pixel of the tile that is in the image.
    TDC_DEVICE void expand() {
        const Epilogue<Arithmetic> epilogue = {static_cast<Element*>(p.y),
                                               static_cast<const Element*>(p.residual),
                                               static_cast<const Element*>(p.bias), p.m, p.slope};
        const int vectors = p.r_out / kVector;
        for (int column0 = m_begin; column0 < m_end; column0 += Config::kColumns) {
            typename Tiles::Sums sums = {};
            pass<Tiles>(sums, vectors, [&](int i, int chunk) {
                return t2 + (Tiles::row(i) * layout.t2_pitch + chunk * kChunk) * kVector;
            });
            Tiles::for_each_four(sums, [&](int row, int column, const float4& four) {
                const int oy = tile_y + row / Config::kTileW, ox = tile_x + row % Config::kTileW;
                if (oy >= p.h_out || ox >= p.w_out || column0 + column >= m_end) return;
                const long long line = static_cast<long long>(image) * p.h_out + oy;
                epilogue.put(line * p.w_out + ox, column0 + column, four);
            });
        }
    }

    // A pass over `vectors` vectors of rows that begin at row_pointer(i, chunk).
    template <class PassTiles, class RowPointer>
    TDC_DEVICE void pass(typename PassTiles::Sums& sums, int vectors, RowPointer row_pointer) {
        for (int chunk = 0; chunk < ceil_div(vectors, kChunk); ++chunk) {
            turn_ring();
            const Element* pointers[PassTiles::kRowsOfLane];
#pragma unroll
            for (int i = 0; i < PassTiles::kRowsOfLane; ++i) pointers[i] = row_pointer(i, chunk);
            PassTiles::multiply(
                sums, pointers, [](int v) { return v * kVector; }, slot_columns(),
                vectors - chunk * kChunk);
            slot = slot + 1 == Config::kStages ? 0 : slot + 1;
        }
    }

    // The same over rows whose vectors lie where `offsets` says.
    TDC_DEVICE void pass_gathered(typename Tiles::Sums& sums, int vectors,
                                  const Element* const (&pixel_rows)[Tiles::kRowsOfLane]) {
        for (int chunk = 0; chunk < ceil_div(vectors, kChunk); ++chunk) {
            turn_ring();
            const int* table = offsets + chunk * kChunk;
            Tiles::multiply(
                sums, pixel_rows, [&](int v) { return table[v]; }, slot_columns(),
                vectors - chunk * kChunk);
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

    TDC_DEVICE const Element* slot_columns() const {
        return columns + slot * Config::kColumns * kChunkPitch * kVector;
    }

    TDC_DEVICE void load() {
        int vectors;
        if (ahead.stage == 1) {
            vectors = ceil_div(p.c, kVector);
            load_pixels();
            load_columns(p.first, slice_end, p.c, ahead.chunk * kChunk * kVector, p.c);
            advance(vectors, slice_end);
        } else if (ahead.stage == 2) {
            vectors = p.kernel_h * p.kernel_w * slice_vectors;
            load_core(vectors);
            advance(vectors, p.r_out);
        } else {
            vectors = p.r_out / kVector;
            load_columns(p.last, min(p.m, m_end), p.r_out, ahead.chunk * kChunk * kVector, p.r_out);
            advance(vectors, m_end);
        }
        ahead_slot = ahead_slot + 1 == Config::kStages ? 0 : ahead_slot + 1;
    }

    // To the next chunk: of this pass, of the next columns, of the next rows, of the next stage.
    TDC_DEVICE void advance(int vectors, int columns_end) {
        if (++ahead.chunk * kChunk < vectors) return;
        ahead.chunk = 0;
        if ((ahead.column0 += Config::kColumns) < columns_end) return;
        ahead.column0 = ahead.stage == 1 ? slice_begin : 0;
        if (ahead.stage == 1 && (ahead.row0 += Config::kRows) < inside_pixels) return;
        ++ahead.stage;
        ahead.column0 = ahead.stage == 3 ? m_begin : 0;
    }

    // A chunk of X for kRows pixels of the halo.
    TDC_DEVICE void load_pixels() {
        const auto* x = static_cast<const Element*>(p.x) +
                        static_cast<long long>(image) * p.h * p.w * Arithmetic::pitch(p.c);
        const bool aligned = Arithmetic::pitch(p.c) % kVector == 0;
        Element* to = rows + ahead_slot * Config::kRows * kChunkPitch * kVector;
#pragma unroll 2
        for (int i = thread_index(); i < Config::kRows * kChunk; i += Config::kThreads) {
            const int row = i / kChunk;
            const int channel = (ahead.chunk * kChunk + i % kChunk) * kVector;
            const bool there = ahead.row0 + row < inside_pixels;
            const int count = there ? p.c - channel : 0;
            const int at = there ? pixels[ahead.row0 + row] * Arithmetic::pitch(p.c) + channel : 0;
            copy_vector<Arithmetic>(to + (row * kChunkPitch + i % kChunk) * kVector,
                                    count > 0 ? x + at : x, count, aligned);
        }
    }

    // A chunk of a weight matrix [columns_end, pitch]: elements `k` on, `depth` in all.
    TDC_DEVICE void load_columns(const void* weights, int columns_end, int pitch, int k,
                                 int depth) {
        const auto* w = static_cast<const Element*>(weights);
        const bool aligned = pitch % kVector == 0;
#pragma unroll 2
        for (int i = thread_index(); i < Config::kColumns * kChunk; i += Config::kThreads) {
            const int column = ahead.column0 + Tiles::column(i / kChunk);
            const int at = k + i % kChunk * kVector;
            const int count = column < columns_end ? depth - at : 0;
            copy_vector<Arithmetic>(column_slot(i), count > 0 ? w + column * pitch + at : w, count,
                                    aligned);
        }
    }

    // A chunk of the core [taps, r_out, r_in], its summed index running over taps and the slice.
    TDC_DEVICE void load_core(int vectors) {
        const int v = ahead.chunk * kChunk + thread_index() % kChunk;  // the same for all its rows
        const int tap = v / slice_vectors, channel = v % slice_vectors * kVector;
        const auto* w = static_cast<const Element*>(p.core);
        const auto* from = w + tap * p.r_out * p.r_in + slice_begin + channel;
#pragma unroll 2
        for (int i = thread_index(); i < Config::kColumns * kChunk; i += Config::kThreads) {
            const int column = ahead.column0 + Tiles::column(i / kChunk);
            const bool there = column < p.r_out && v < vectors;
            copy_vector<Arithmetic>(column_slot(i), there ? from + column * p.r_in : w,
                                    there ? kVector : 0, true);
        }
    }

    TDC_DEVICE Element* column_slot(int i) const {
        const int row = ahead_slot * Config::kColumns + i / kChunk;
        return columns + (row * kChunkPitch + i % kChunk) * kVector;
    }

    TDC_DEVICE void keep_t1(int row, int column, const float4& sums) {
        if (row >= inside_pixels || column >= slice_end) return;
        Arithmetic::store_four(t1 + t1_rows[row] * layout.t1_pitch * kVector + column - slice_begin,
                               activate(sums, p.first_bias, column, p.first_slope));
    }

    TDC_DEVICE void keep_t2(int row, int column, const float4& sums) {
        if (column >= p.r_out) {
            if (column < layout.t2_pitch * kVector)  // what a step reads beyond r_out
                Arithmetic::store_four(t2_at(row, column), make_float4(0, 0, 0, 0));
        } else if (split == Split::kNone) {
            keep_activated_t2(row, column, sums);
        } else {
            *reinterpret_cast<float4*>(split == Split::kCluster ? partial_at(row, column)
                                                                : workspace(part, row, column)) =
                sums;
        }
    }

    TDC_DEVICE void keep_activated_t2(int row, int column, const float4& sums) {
        Arithmetic::store_four(t2_at(row, column),
                               activate(sums, p.core_bias, column, p.core_slope));
    }

    TDC_DEVICE static float4 activate(const float4& sums, const void* bias, int column,
                                      float slope) {
        const auto* from = static_cast<const Element*>(bias) + column;
        return leaky_relu(add(sums, Arithmetic::load_four(from)), slope);
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
            const float4 values = activate(sums, p.core_bias, column, p.core_slope);
#pragma unroll 1
            for (int other = 0; other < parts; ++other)
                Arithmetic::store_four(
                    cluster_shared(t2_at(row, column), static_cast<unsigned>(other)), values);
        }
        cluster_sync();
    }

    // True in the last block of the tile to arrive, which then has all of T2.
    TDC_DEVICE bool meet_in_workspace() {
        int& ticket = t1_rows[layout.halo_pixels];
        __threadfence();  // what this block has written is seen by whoever sees its ticket
        __syncthreads();
        if (thread_index() == 0) {
            ticket = static_cast<int>(atomicAdd(p.counters + tile, 1u));
            if (ticket == parts - 1) p.counters[tile] = 0;  // for the next launch
        }
        __syncthreads();
        if (ticket != parts - 1) return false;
        __threadfence();
#pragma unroll 1  // registers are for the products
        for (int i = thread_index() * 4; i < Config::kPixels * p.r_out; i += Config::kThreads * 4) {
            const int row = i / p.r_out, column = i % p.r_out;
            float4 sums = make_float4(0, 0, 0, 0);
#pragma unroll 4
            for (int other = 0; other < parts; ++other)
                sums = add(sums,
                           __ldcg(reinterpret_cast<const float4*>(workspace(other, row, column))));
            keep_activated_t2(row, column, sums);
        }
        return true;
    }

    const TuckerConvParams& p;
    const Split split;
    const int parts;
    const Layout layout;
    Element* const t1;       // [halo_pixels, t1_pitch]
    Element* const t2;       // [kPixels, t2_pitch]
    Element* const rows;     // [kStages, kRows, kChunkPitch]: X
    Element* const columns;  // [kStages, kColumns, kChunkPitch]: weights
    float* const partial;    // [kPixels, partial_pitch]
    int* const offsets;
    int* const pixels;   // [halo_pixels]
    int* const t1_rows;  // [halo_pixels], and the ticket
    int part, tile, image, tile_y, tile_x;
    int inside_y, inside_x, inside_w, inside_pixels;  // the halo's rectangle in the image
    int slice_begin, slice_end, slice_vectors;        // of r_in
    int m_begin, m_end;
    Step ahead;
    int slot, ahead_slot, last_stage;
};

template <class Arithmetic, class Config>
__global__ void __launch_bounds__(Config::kThreads, Block<Arithmetic, Config>::kBlocks)
    kernel(const TuckerConvParams params, const Split split, const int parts) {
    TDC_DYNAMIC_SHARED(uint4, shared);
    if constexpr (kArchitecture >= 80)
        Block<Arithmetic, Config>(params, split, parts, shared).run();
}

}  // namespace tdc::fused
