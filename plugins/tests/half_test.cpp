// Conversions between half and float against arithmetic in double.

#include "emulator/half.h"

#include <cmath>
#include <cstdint>
#include <limits>

#include "check.h"
#include "emulator/tensor_core.h"

namespace {

using tdc::emulator::bit_cast;

// IEEE 754 binary16, by its definition.
double value_of(uint16_t half) {
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    const double sign = half >> 15 ? -1 : 1;
    if (exponent == 31) return mantissa ? std::nan("") : sign * INFINITY;
    if (exponent == 0) return sign * std::ldexp(mantissa, -24);
    return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

// The value rounded to a multiple of its last place in a format with `mantissa` bits after the
// leading one and the exponent `least` at the smallest. std::nearbyint rounds ties to even.
double round_to(double value, int mantissa, int least, double (*round)(double)) {
    if (value == 0 || !std::isfinite(value)) return value;
    const double place = std::ldexp(1, std::max(std::ilogb(value), least) - mantissa);
    return round(value / place) * place;
}

double nearest_half(double value) {
    const double rounded = round_to(value, 10, -14, std::nearbyint);
    return std::fabs(rounded) > 65504 ? std::copysign(INFINITY, value) : rounded;
}

void check_float(float value) {
    CHECK(value_of(tdc::emulator::float_to_half_bits(value)) == nearest_half(value));
    CHECK(std::signbit(value_of(tdc::emulator::float_to_half_bits(value))) == std::signbit(value));
}

// The conversion is monotone, so it is right everywhere if it is right beside and at the middle
// between any two halves.
void every_boundary() {
    for (unsigned bits = 0; bits < 0x7c00; ++bits) {
        const auto half = static_cast<uint16_t>(bits);
        const double low = value_of(half);
        const double high = bits == 0x7bff ? 65536 : value_of(static_cast<uint16_t>(bits + 1));
        for (double at : {low, (low + high) / 2}) {
            const float middle = static_cast<float>(at);
            for (float sign : {1.f, -1.f}) {
                check_float(sign * middle);
                check_float(sign * std::nextafter(middle, INFINITY));
                check_float(sign * std::nextafter(middle, -INFINITY));
            }
        }
    }
}

void every_half() {
    for (unsigned bits = 0; bits <= 0xffff; ++bits) {
        const auto half = static_cast<uint16_t>(bits);
        const float value = tdc::emulator::half_bits_to_float(half);
        if (std::isnan(value_of(half))) {
            CHECK(std::isnan(value));
            CHECK(tdc::emulator::float_to_half_bits(value) == 0x7fff);
        } else {
            CHECK(value == value_of(half));
            CHECK(tdc::emulator::float_to_half_bits(value) == half);
        }
    }
}

void floats_throughout() {
    constexpr uint32_t kStride = 2003;  // a prime: no pattern of low bits repeats
    for (uint32_t bits = 0; bits < 0x7f800000u; bits += kStride) {
        check_float(bit_cast<float>(bits));
        const double rounded = round_to(bit_cast<float>(bits), 10, -126, std::round);
        if (rounded > std::numeric_limits<float>::max()) continue;
        const uint32_t tf32 = tdc::emulator::round_to_tf32(bit_cast<float>(bits));
        CHECK((tf32 & 0x1fff) == 0);
        CHECK(bit_cast<float>(tf32) == rounded);
    }
}

}  // namespace

int main() {
    every_half();
    every_boundary();
    floats_throughout();
    check_float(INFINITY);
    check_float(-INFINITY);
    check_float(std::numeric_limits<float>::max());
    CHECK(std::isnan(bit_cast<float>(tdc::emulator::round_to_tf32(bit_cast<float>(0xffffffffu)))));
    CHECK(bit_cast<float>(tdc::emulator::round_to_tf32(INFINITY)) == INFINITY);
    return tdc::test::result();
}
