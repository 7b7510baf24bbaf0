// The bounds that kernels are held to are narrow enough: a small fault leaves them. (That they are
// wide enough, every kernel shows.)
#include "problem.h"

#include <cmath>
#include <cstdio>
#include <functional>

#include "check.h"
#include "emulator/half.h"
#include "emulator/tensor_core.h"
#include "rounding.h"

namespace {

using tdc::Arithmetic;
using tdc::test::Bounds;
using tdc::test::Case;
using tdc::test::Problem;

constexpr Arithmetic kArithmetics[] = {Arithmetic::kF16, Arithmetic::kTf32, Arithmetic::kF32};

// Whether some element of a result is out of bounds. The result is the one with exact sums, which
// is in the middle of its own bounds.
bool out_of_bounds(const Bounds& result, const Bounds& bounds) {
    for (std::size_t i = 0; i < result.low.size(); ++i) {
        const double value = (result.low[i] + result.high[i]) / 2;
        if (!(value >= bounds.low[i] && value <= bounds.high[i])) return true;
    }
    return false;
}

using Fault = std::function<void(Problem&)>;

void check_found(const char* name, const Problem& right, Fault fault) {
    Problem wrong = right;
    fault(wrong);
    const bool found = out_of_bounds(wrong.bounds(), right.bounds());
    CHECK(found);
    if (!found)
        std::fprintf(stderr, "  \"%s\", arithmetic %d: \"%s\" is not found\n", right.layer.name,
                     static_cast<int>(right.arithmetic), name);
}

// Sets every element that is `channel` modulo `channels` to zero.
void drop(std::vector<double>& values, int channels, int channel) {
    for (std::size_t i = static_cast<std::size_t>(channel); i < values.size();
         i += static_cast<std::size_t>(channels))
        values[i] = 0;
}

// Explicit zeros around X in place of padding: T1 is lrelu(bias) there, not zero.
void pad_input(Problem& p) {
    Case& k = p.layer;
    const int h = k.h + k.top + k.bottom, w = k.w + k.left + k.right;
    std::vector<double> x(static_cast<std::size_t>(k.n * h * w * k.c));
    for (int i = 0; i < static_cast<int>(p.x.size()); ++i) {
        const int channel = i % k.c, column = i / k.c % k.w + k.left;
        const int row = i / k.c / k.w % k.h + k.top, image = i / k.c / k.w / k.h;
        x[static_cast<std::size_t>(((image * h + row) * w + column) * k.c + channel)] =
            p.x[static_cast<std::size_t>(i)];
    }
    p.x = x;
    k.h = h, k.w = w, k.top = k.left = k.bottom = k.right = 0;
}

// What kernels get wrong, each about as small as it can be.
void check_faults(const Problem& p) {
    const Case& k = p.layer;
    CHECK(!out_of_bounds(p.bounds(), p.bounds()));
    check_found("last channel of X", p, [&](Problem& q) { drop(q.x, k.c, k.c - 1); });
    check_found("a channel of T1", p, [&](Problem& q) { drop(q.core, k.r_in, k.r_in / 2); });
    check_found("a channel of T2", p, [&](Problem& q) { drop(q.last, k.r_out, k.r_out - 1); });
    check_found("one weight of the core", p, [](Problem& q) { q.core.back() = 0; });
    check_found("one bias of T1", p, [](Problem& q) { q.first_bias.back() = 0; });
    check_found("one bias of T2", p, [](Problem& q) { q.core_bias.front() = 0; });
    check_found("one bias of Y", p, [](Problem& q) { q.bias.back() = 0; });
    check_found("one pixel of X", p, [&](Problem& q) {
        for (int c = 1; c <= k.c; ++c) q.x[q.x.size() - static_cast<std::size_t>(c)] = 0;
    });
    check_found("padding before the first convolution", p, pad_input);
    check_found("shifted by a row", p, [](Problem& q) { ++q.layer.top, --q.layer.bottom; });
    check_found("shifted by a column", p, [](Problem& q) { ++q.layer.right, --q.layer.left; });
    check_found("slope of T1", p, [](Problem& q) { q.layer.first_slope += 0.1F; });
    check_found("slope of T2", p, [](Problem& q) { q.layer.core_slope += 0.1F; });
    check_found("slope of Y", p, [](Problem& q) { q.layer.slope += 0.1F; });
    if (k.slope < 0) check_found("sign of a slope", p, [](Problem& q) { q.layer.slope *= -1; });
    check_found("residual", p, [](Problem& q) { q.layer.residual = !q.layer.residual; });
    if (p.arithmetic == Arithmetic::kF32)
        check_found("tf32 for fp32", p, [](Problem& q) { q.arithmetic = Arithmetic::kTf32; });
}

// The kernels' conversions are the emulator's; the tests' are written apart from them.
void check_rounding() {
    for (unsigned bits = 0; bits < 0x10000; ++bits) {
        const auto half = static_cast<uint16_t>(bits);
        const double value = tdc::test::f16_value(half);
        if (std::isnan(value)) continue;
        CHECK(value == double{tdc::emulator::half_bits_to_float(half)});
        if (std::isfinite(value)) CHECK(tdc::test::f16_bits(value) == half);
    }
    for (uint32_t bits = 1; bits < 0xff000000u; bits += 9973) {
        const auto value = tdc::emulator::bit_cast<float>(bits);
        if (!std::isfinite(value)) continue;
        const uint16_t half = tdc::emulator::float_to_half_bits(value);
        CHECK(tdc::test::rounded_to_f16(value) == double{tdc::emulator::half_bits_to_float(half)});
        const auto tf32 = tdc::emulator::bit_cast<float>(tdc::emulator::round_to_tf32(value));
        CHECK(!std::isfinite(tf32) || tdc::test::rounded_to_tf32(value) == double{tf32});
    }
}

}  // namespace

int main() {
    check_rounding();
    for (const char* name :
         {"32,32,7", "parts of 72", "C 20, M 12", "pads all differ", "slopes below zero"})
        for (const Case& layer : tdc::test::cases()) {
            if (layer.name != std::string(name)) continue;
            for (const Arithmetic arithmetic : kArithmetics)
                check_faults(Problem(layer, arithmetic));
        }
    return tdc::test::result();
}
