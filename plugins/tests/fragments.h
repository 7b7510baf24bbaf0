// Kernels of one warp that expose what each lane holds. Pointers are to device memory.
#pragma once

#include <cstdint>

namespace tdc::test {

// tile: 32 rows of 8 16-bit elements. registers: [lane][4], as ldmatrix gives them when lane l
// points at row l.
void load_fragments(const uint16_t* tile, uint32_t* registers, bool transposed);

// a: [lane][4], b: [lane][2] bits; d: [lane][4], added to.
void multiply_f16(const uint32_t* a, const uint32_t* b, float* d);
void multiply_tf32(const uint32_t* a, const uint32_t* b, float* d);

// bits[i] = to_tf32(values[i]) for 32 values.
void round_tf32(const float* values, uint32_t* bits);

}  // namespace tdc::test
