#include "emulator/tensor_core.h"

#include <cmath>
#include <cstring>

#include "emulator/half.h"

namespace tdc::emulator {
namespace {

constexpr uint32_t kAllLanes = ~0u;
constexpr uint32_t kBitsBelowTf32 = 0x1fff;

struct LoadOperands {
    uint32_t* r;
    const void* row;
    bool transposed;
};

void load_matrices(void* const (&lanes)[32], uint32_t) {
    uint16_t matrices[4][8][8];
    for (int i = 0; i < 32; ++i)
        std::memcpy(matrices[i / 8][i % 8], static_cast<LoadOperands*>(lanes[i])->row, 16);
    for (int i = 0; i < 32; ++i) {
        const auto* operands = static_cast<LoadOperands*>(lanes[i]);
        const int row = i / 4, column = i % 4 * 2;
        for (int m = 0; m < 4; ++m) {
            const auto& matrix = matrices[m];
            const uint32_t low = operands->transposed ? matrix[column][row] : matrix[row][column];
            const uint32_t high =
                operands->transposed ? matrix[column + 1][row] : matrix[row][column + 1];
            operands->r[m] = low | high << 16;
        }
    }
}

struct MmaOperands {
    float* d;
    const uint32_t* a;
    uint32_t b[2];
};

float tf32(uint32_t bits) {
    if (bits & kBitsBelowTf32) fail("mma tf32: operand %08x was not rounded by to_tf32", bits);
    return bit_cast<float>(bits);
}

// A register of a or b holds `kPacked` values that are neighbours in k; registers of a go down 8
// rows, then to the right by half of k.
template <int K>
void multiply(void* const (&lanes)[32], uint32_t) {
    constexpr int kPacked = K / 8;
    const auto unpack = [](uint32_t bits, int i) {
        if constexpr (kPacked == 1) return (void)i, tf32(bits);
        return half_bits_to_float(static_cast<uint16_t>(bits >> 16 * i));
    };
    float a[16][K], b[K][8];
    for (int i = 0; i < 32; ++i) {
        const auto* operands = static_cast<MmaOperands*>(lanes[i]);
        const int group = i / 4, k = i % 4 * kPacked;
        for (int p = 0; p < kPacked; ++p) {
            for (int r = 0; r < 4; ++r)
                a[group + r % 2 * 8][k + p + r / 2 * (K / 2)] = unpack(operands->a[r], p);
            for (int r = 0; r < 2; ++r) b[k + p + r * (K / 2)][group] = unpack(operands->b[r], p);
        }
    }
    // The lane and the register that hold an element of d.
    const auto element = [&](int row, int column) -> float& {
        auto* operands = static_cast<MmaOperands*>(lanes[row % 8 * 4 + column / 2]);
        return operands->d[row / 8 * 2 + column % 2];
    };
    float d[16][8];
    for (int i = 0; i < 128; ++i) d[i / 8][i % 8] = element(i / 8, i % 8);
    for (int k = 0; k < K; ++k)  // outermost, so that sums do not wait for each other
        for (int row = 0; row < 16; ++row)
            for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
    for (int i = 0; i < 128; ++i) element(i / 8, i % 8) = d[i / 8][i % 8];
}

}  // namespace

void ldmatrix_x4(uint32_t (&r)[4], const void* row, bool transposed, Site site) {
    if (reinterpret_cast<uintptr_t>(row) % 16)
        fail("ldmatrix at %s:%d: row %p is not 16-byte aligned", site.file, site.line, row);
    note(Access::kRead, row, 16, __builtin_return_address(0));
    LoadOperands operands{r, row, transposed};
    warp_collective(kAllLanes, "ldmatrix", &operands, load_matrices, site);
}

void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site site) {
    MmaOperands operands{d, a, {b0, b1}};
    warp_collective(kAllLanes, "mma f16", &operands, multiply<16>, site);
}

void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site site) {
    MmaOperands operands{d, a, {b0, b1}};
    warp_collective(kAllLanes, "mma tf32", &operands, multiply<8>, site);
}

uint32_t round_to_tf32(float value) {
    const uint32_t bits = bit_cast<uint32_t>(value);
    if (std::isnan(value)) return 0x7fffe000u;  // a carry must not reach the sign
    return (bits + (kBitsBelowTf32 + 1) / 2) & ~kBitsBelowTf32;
}

}  // namespace tdc::emulator
