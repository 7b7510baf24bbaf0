// ldmatrix and mma, computed by the last lane of the warp to arrive. tdc/device.h documents them.
#pragma once

#include <cstdint>

#include "emulator/runtime.h"

namespace tdc::emulator {

void ldmatrix_x4(uint32_t (&r)[4], const void* row, bool transposed, Site site);

// Products are exact; sums are in fp32, in order of k (a device's order and rounding differ).
void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site site);

// Fails on an operand with bits that tf32 has not: a device would drop them, with an error twice
// that of rounding.
void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site site);

uint32_t round_to_tf32(float value);

}  // namespace tdc::emulator
