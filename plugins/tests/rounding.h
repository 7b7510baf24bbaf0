// Rounding of float64 values to the formats that kernels compute in, and the bits of fp16. Written
// from the formats' definitions (IEEE 754; PTX ISA, "cvt"), apart from the emulator's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace tdc::test {

// To a significand of `bits` bits whose last place is never below 2^lowest. Ties go to even, or
// away from zero.
inline double rounded(double value, int bits, int lowest, bool ties_away) {
    if (value == 0 || !std::isfinite(value)) return value;
    const int last_place = std::max(std::ilogb(value) - bits + 1, lowest);
    const double places = std::ldexp(value, -last_place);
    return std::ldexp(ties_away ? std::round(places) : std::nearbyint(places), last_place);
}

inline double rounded_to_f16(double value) {
    const double result = rounded(value, 11, -24, false);
    const double infinity = std::numeric_limits<double>::infinity();
    return std::fabs(result) > 65504 ? std::copysign(infinity, value) : result;
}
inline double rounded_to_tf32(double value) { return rounded(value, 11, -136, true); }
inline double rounded_to_f32(double value) { return static_cast<float>(value); }

// Of a finite value that fp16 has.
inline uint16_t f16_bits(double value) {
    const unsigned sign = std::signbit(value) ? 0x8000u : 0u;
    const double size = std::fabs(value);
    if (size < 0x1p-14) return static_cast<uint16_t>(sign | static_cast<unsigned>(size * 0x1p24));
    const int exponent = std::ilogb(size);
    const double fraction = std::ldexp(size, 10 - exponent) - 1024;
    return static_cast<uint16_t>(sign | static_cast<unsigned>(exponent + 15) << 10 |
                                 static_cast<unsigned>(fraction));
}
inline double f16_value(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double size = 0;
    if (exponent == 31)
        size = fraction ? std::numeric_limits<double>::quiet_NaN()
                        : std::numeric_limits<double>::infinity();
    else
        size = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
    return bits >> 15 ? -size : size;
}

}  // namespace tdc::test
