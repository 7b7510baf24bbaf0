// Shapes and shared memory of the fused kernel, for the device and for the host that sizes it.
#pragma once

#include "kernels/chunks.h"
#include "tdc/tactics.h"

namespace tdc::fused {

struct Sizes {  // of a configuration, for the host
    int tile_h, tile_w, rows, columns, stages, vector;
};

// Where things lie in shared memory, and the shapes that follow from the parameters and the tile.
// Lengths are in vectors of 16 bytes.
struct Layout {
    int halo_w, halo_pixels;  // pixels of T1 under the tile
    int slice;                // of a row of T1: r_in, or the largest part of it
    int t1_pitch, t2_pitch;   // odd: see kChunkPitch
    int partial_pitch;        // of fp32 sums of T2
    int t1, rows, t2, partial, columns, offsets, pixels, t1_rows, total;

    TDC_HOST_DEVICE Layout(const TuckerConvParams& p, const Sizes& s, Split split, int parts)
        : halo_w((s.tile_w - 1) * p.stride_w + (p.kernel_w - 1) * p.dilation_w + 1),
          halo_pixels(halo_w * ((s.tile_h - 1) * p.stride_h + (p.kernel_h - 1) * p.dilation_h + 1)),
          slice(ceil_div(p.r_in / 8, parts) * 8 / s.vector),
          t1_pitch(slice | 1),
          t2_pitch(round_up(p.r_out / s.vector, 2) | 1),
          partial_pitch(p.r_out / 4 + 1) {
        const int tile = s.tile_h * s.tile_w;
        t1 = 0;
        // T2 takes the place of X, which nobody needs any more.
        rows = t2 = t1 + halo_pixels * t1_pitch;
        partial = t2 + tile * t2_pitch;
        const int end = partial + (split == Split::kCluster ? tile * partial_pitch : 0);
        const int rows_end = rows + s.stages * s.rows * kChunkPitch;
        columns = end > rows_end ? end : rows_end;
        offsets = columns + s.stages * s.columns * kChunkPitch;
        pixels = offsets + ceil_div(round_up(p.kernel_h * p.kernel_w * slice, kChunk), 4);
        t1_rows = pixels + ceil_div(halo_pixels, 4);
        total = t1_rows + ceil_div(halo_pixels + 1, 4);
    }
};

}  // namespace tdc::fused
