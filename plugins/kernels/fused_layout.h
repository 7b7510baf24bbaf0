// Shapes and shared memory of the fused kernel. The host computes them and hands them to the
// kernel; a kernel that TensorRT launches (plugins/embedded) computes them itself.
#pragma once

#include "kernels/chunks.h"
#include "tdc/tactics.h"

namespace tdc::fused {

struct Sizes {  // of a configuration
    int tile_h, tile_w, rows, columns, stages, vector;
};

// Where things lie in shared memory, and the shapes that follow from the parameters and the tile.
// Lengths are in vectors of 16 bytes.
struct Layout {
    int halo_h, halo_w;      // pixels of T1 under the tile
    int slice;               // of a pixel of T1: r_in, or the largest part of it
    int t1_pitch, t2_pitch;  // from pixel to pixel; odd: see kChunkPitch
    int row_pitch;           // from one row of the halo to the next
    int column_group;        // pixels of a row whose x has the same remainder by the stride
    int partial_pitch;       // of fp32 sums of T2
    int t1, rows, t2, partial, columns, t1_offsets, core_offsets, pixels, places, total;

    TDC_HOST_DEVICE Layout(const TuckerConvParams& p, const Sizes& s, Split split, int parts)
        : halo_h((s.tile_h - 1) * p.stride_h + (p.kernel_h - 1) * p.dilation_h + 1),
          halo_w((s.tile_w - 1) * p.stride_w + (p.kernel_w - 1) * p.dilation_w + 1),
          slice(ceil_div(p.r_in / 8, parts) * 8 / s.vector),
          t1_pitch(slice | 1),
          t2_pitch(round_up(p.r_out / s.vector, 2) | 1),
          column_group(ceil_div(halo_w, p.stride_w)),
          partial_pitch(p.r_out / 4 + 1) {
        row_pitch = p.stride_w * column_group * t1_pitch;
        // Eight pixels that ldmatrix takes at once are two rows of four: those must hit other
        // banks.
        for (int i = 0; s.tile_w == 4 && i < 8; ++i)
            if ((row_pitch + i) * p.stride_h % 8 == 4) {
                row_pitch += i;
                break;
            }
        const int tile = s.tile_h * s.tile_w;
        t1 = 0;
        // T2 takes the place of X, which nobody needs any more.
        rows = t2 = t1 + halo_h * row_pitch;
        partial = t2 + tile * t2_pitch;
        const int end = partial + (split == Split::kCluster ? tile * partial_pitch : 0);
        const int rows_end = rows + s.stages * s.rows * kChunkPitch;
        columns = end > rows_end ? end : rows_end;
        t1_offsets = columns + s.stages * s.columns * kChunkPitch;
        const int table = round_up(p.kernel_h * p.kernel_w * slice, kChunk) / 4;
        core_offsets = t1_offsets + table;
        pixels = core_offsets + table;
        places = pixels + ceil_div(halo_h * halo_w, 4);
        total = places + ceil_div(halo_h * halo_w + 1, 4);
    }

    // Where pixel (y, x) of the halo lies in T1. Neighbouring output pixels read pixels that lie
    // side by side, whatever the stride.
    TDC_HOST_DEVICE int place(int y, int x, int stride_w) const {
        return y * row_pitch + (x % stride_w * column_group + x / stride_w) * t1_pitch;
    }
};

}  // namespace tdc::fused
