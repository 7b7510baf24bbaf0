// The tiled product against one in double, under every schedule.

#include "gemm.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "check.h"
#include "emulator/half.h"

namespace {

using Bits = std::vector<unsigned short>;

Bits random_matrix(size_t size, std::mt19937& random) {
    std::uniform_real_distribution<float> draw(-1, 1);
    Bits matrix(size);
    for (auto& bits : matrix) bits = tdc::emulator::float_to_half_bits(draw(random));
    return matrix;
}

double value(unsigned short bits) { return double{tdc::emulator::half_bits_to_float(bits)}; }

// Products are exact. What may differ from the sum in double: k additions in fp32, each by at most
// 2^-24 of the sum of the products' sizes, and the rounding to half, by at most 2^-11.
void check_gemm(size_t m, size_t n, size_t k) {
    std::mt19937 random(1);
    const Bits a = random_matrix(m * k, random), b = random_matrix(k * n, random);
    Bits c(m * n, 0x7fff);
    tdc::test::gemm(a.data(), b.data(), c.data(), static_cast<int>(m), static_cast<int>(n),
                    static_cast<int>(k));
    for (size_t row = 0; row < m; ++row)
        for (size_t column = 0; column < n; ++column) {
            double sum = 0, size = 0;
            for (size_t i = 0; i < k; ++i) {
                const double product = value(a[row * k + i]) * value(b[i * n + column]);
                sum += product;
                size += std::fabs(product);
            }
            const double tolerance =
                std::fabs(sum) * 0x1p-11 + static_cast<double>(k) * size * 0x1p-24 + 0x1p-25;
            CHECK(std::fabs(value(c[row * n + column]) - sum) <= tolerance);
        }
}

}  // namespace

int main() {
    tdc::test::for_each_schedule([] {
        check_gemm(64, 64, 32);
        check_gemm(128, 128, 128);
        check_gemm(70, 72, 40);  // edges in every direction
        check_gemm(1, 8, 8);
    });
    return tdc::test::result();
}
