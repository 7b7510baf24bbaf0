// __half and __half2 as a kernel uses them: storage, and conversion to and from float.
//
// Conversions are explicit and there is no arithmetic, so that a kernel cannot compute in a
// precision that differs from the device's: it converts to float, or feeds mma.
// Source of names and rounding: CUDA Math API, "Half Precision Intrinsics"; IEEE 754 binary16.
#pragma once

#include <cstdint>
#include <cstring>

#include "emulator/types.h"

namespace tdc::emulator {

template <class To, class From>
To bit_cast(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// Exact. A NaN keeps its payload.
inline float half_bits_to_float(uint16_t half) {
    const uint32_t sign = (half & 0x8000u) << 16;
    const uint32_t magnitude = (half & 0x7fffu) << 13;
    if ((half & 0x7c00) == 0x7c00) return bit_cast<float>(sign | 0x7f800000u | magnitude);
    // The exponent bias differs by 127 - 15; a multiplication moves it, subnormals included.
    return bit_cast<float>(sign | bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f));
}

// To nearest, ties to even. NaN becomes 0x7fff, as on the device.
inline uint16_t float_to_half_bits(float value) {
    const uint32_t bits = bit_cast<uint32_t>(value);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7fff;
    if (magnitude >= bit_cast<uint32_t>(65520.0f)) return static_cast<uint16_t>(sign | 0x7c00);
    if (magnitude < bit_cast<uint32_t>(0x1p-14f)) {
        // A subnormal counts units of 2^-24, which is the last place of a float in [0.5, 1): the
        // addition rounds.
        const float shifted = bit_cast<float>(magnitude) + 0.5f;
        return static_cast<uint16_t>(sign | (bit_cast<uint32_t>(shifted) & 0x7fffffu));
    }
    const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return static_cast<uint16_t>(sign | (rounded - (112u << 23)) >> 13);
}

}  // namespace tdc::emulator

struct __half {
    __half() = default;
    explicit __half(float value) : bits(tdc::emulator::float_to_half_bits(value)) {}
    explicit operator float() const { return tdc::emulator::half_bits_to_float(bits); }
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};

inline __half __float2half(float value) { return __half(value); }
inline __half __float2half_rn(float value) { return __half(value); }
inline float __half2float(__half value) { return float(value); }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline float2 __half22float2(__half2 value) { return {float(value.x), float(value.y)}; }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __half __ushort_as_half(unsigned short bits) {
    return tdc::emulator::bit_cast<__half>(bits);
}
