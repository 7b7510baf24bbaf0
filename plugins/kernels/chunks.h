// How operands are cut for the pipelines of the channel-last kernels.
#pragma once

#include "tdc/cuda_api.h"

namespace tdc {

// Vectors of a chunk: what a step of a pipeline brings of a row. Rows of chunks lie an odd number
// of vectors apart, so that eight rows that follow one another hit all banks once.
constexpr int kChunk = 8, kChunkPitch = kChunk + 1;

TDC_HOST_DEVICE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
TDC_HOST_DEVICE constexpr int round_up(int a, int b) { return ceil_div(a, b) * b; }

}  // namespace tdc
