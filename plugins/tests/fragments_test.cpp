// Fragment layouts of ldmatrix and mma against the index maps of the PTX ISA: "Warp-level matrix
// load instruction: ldmatrix", "Matrix Fragments for mma.m16n8k16 with floating point type", and
// "Matrix Fragments for mma.m16n8k8". The maps are written element by element, as they are there.

#include "fragments.h"

#include <cmath>
#include <random>
#include <vector>

#include "check.h"
#include "emulator/half.h"

namespace {

using tdc::emulator::bit_cast;

struct Place {
    int row, column;
};

Place f16_a(int lane, int i) {  // a0 .. a7
    const int group = lane >> 2, thread = lane % 4;
    return {(i < 2 || (i >= 4 && i < 6)) ? group : group + 8,
            i < 4 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8};
}
Place f16_b(int lane, int i) {  // b0 .. b3
    const int group = lane >> 2, thread = lane % 4;
    return {i < 2 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8, group};
}
Place tf32_a(int lane, int i) {  // a0 .. a3
    const int group = lane >> 2, thread = lane % 4;
    return {(i == 0 || i == 2) ? group : group + 8, (i == 0 || i == 1) ? thread : thread + 4};
}
Place tf32_b(int lane, int i) {  // b0, b1
    const int group = lane >> 2, thread = lane % 4;
    return {i == 0 ? thread : thread + 4, group};
}
Place c(int lane, int i) {  // c0 .. c3
    const int group = lane >> 2, thread = lane % 4;
    return {i < 2 ? group : group + 8, thread * 2 + (i & 1)};
}

using Matrix = std::vector<std::vector<double>>;

// Multiples of 1/64 below 2 in size: exact in half, tf32 and every sum of the product.
Matrix random_matrix(int rows, int columns, std::mt19937& random) {
    std::uniform_int_distribution<int> draw(-127, 127);
    Matrix matrix(static_cast<size_t>(rows), std::vector<double>(static_cast<size_t>(columns)));
    for (auto& row : matrix)
        for (double& value : row) value = draw(random) / 64.0;
    return matrix;
}

double& at(Matrix& matrix, Place place) {
    return matrix[static_cast<size_t>(place.row)][static_cast<size_t>(place.column)];
}

uint32_t bits_of(double value, bool half) {
    const auto single = static_cast<float>(value);
    return half ? tdc::emulator::float_to_half_bits(single) : bit_cast<uint32_t>(single);
}

// Registers of all lanes, `count` each, where element i of a lane is at place(lane, i).
std::vector<uint32_t> pack(Matrix& matrix, int count, bool half, Place (*place)(int, int)) {
    std::vector<uint32_t> registers;
    for (int lane = 0; lane < 32; ++lane)
        for (int r = 0; r < count; ++r)
            registers.push_back(half ? bits_of(at(matrix, place(lane, 2 * r)), true) |
                                           bits_of(at(matrix, place(lane, 2 * r + 1)), true) << 16
                                     : bits_of(at(matrix, place(lane, r)), false));
    return registers;
}

void check_mma(bool half) {
    std::mt19937 random(1);
    const int k = half ? 16 : 8;
    Matrix a = random_matrix(16, k, random), b = random_matrix(k, 8, random);
    Matrix sum = random_matrix(16, 8, random);
    std::vector<float> d;
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i) d.push_back(static_cast<float>(at(sum, c(lane, i))));
    const auto a_registers = pack(a, 4, half, half ? f16_a : tf32_a);
    const auto b_registers = pack(b, 2, half, half ? f16_b : tf32_b);
    (half ? tdc::test::multiply_f16 : tdc::test::multiply_tf32)(a_registers.data(),
                                                                b_registers.data(), d.data());
    for (size_t row = 0; row < 16; ++row)
        for (size_t column = 0; column < 8; ++column)
            for (size_t i = 0; i < static_cast<size_t>(k); ++i)
                sum[row][column] += a[row][i] * b[i][column];
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i)
            CHECK(double{d[static_cast<size_t>(lane * 4 + i)]} == at(sum, c(lane, i)));
}

void check_ldmatrix(bool transposed) {
    std::vector<uint16_t> tile;  // element (row, column) of matrix m is m * 64 + row * 8 + column
    for (unsigned i = 0; i < 256; ++i) tile.push_back(static_cast<uint16_t>(i));
    std::vector<uint32_t> registers(128);
    tdc::test::load_fragments(tile.data(), registers.data(), transposed);
    for (unsigned lane = 0; lane < 32; ++lane)
        for (unsigned m = 0; m < 4; ++m) {
            const unsigned line = lane / 4, place = lane % 4 * 2, step = transposed ? 8 : 1;
            const unsigned low = m * 64 + (transposed ? place * 8 + line : line * 8 + place);
            CHECK(registers[lane * 4 + m] == (low | (low + step) << 16));
        }
}

void check_rounding() {
    std::vector<float> values(32);
    for (size_t i = 0; i < 32; ++i) values[i] = 1 + static_cast<float>(i) * 0x1p-12f;
    std::vector<uint32_t> bits(32);
    tdc::test::round_tf32(values.data(), bits.data());
    for (size_t i = 0; i < 32; ++i)  // ties go away from zero, here up
        CHECK(bit_cast<float>(bits[i]) ==
              1 + std::floor(static_cast<float>(i) / 4 + .5f) * 0x1p-10f);

    std::vector<uint32_t> a(128), b(64);
    std::vector<float> d(128);
    a[5] = bit_cast<uint32_t>(1 + 0x1p-12f);
    CHECK_FAILS("was not rounded by to_tf32",
                [&] { tdc::test::multiply_tf32(a.data(), b.data(), d.data()); });
}

}  // namespace

int main() {
    check_mma(true);
    check_mma(false);
    check_ldmatrix(false);
    check_ldmatrix(true);
    check_rounding();
    return tdc::test::result();
}
