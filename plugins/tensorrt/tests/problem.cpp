#include "problem.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>

#include "emulator/half.h"

namespace tdc::test {
namespace {

using Doubles = std::vector<double>;

std::size_t index(std::initializer_list<int> places, std::initializer_list<int> sizes) {
    std::size_t at = 0;
    auto size = sizes.begin();
    for (const int place : places)
        at = at * static_cast<std::size_t>(*size++) + static_cast<std::size_t>(place);
    return at;
}

std::vector<float> draw(std::size_t count, double deviation, std::mt19937& random) {
    std::normal_distribution<float> normal(0.F, static_cast<float>(deviation));
    std::vector<float> values(count);
    for (float& value : values) value = __half2float(__float2half(normal(random)));
    return values;
}

double activated(double value, float slope) {
    return value >= 0 ? value : static_cast<double>(slope) * value;
}

double rounded(double value, bool rounding) {
    return rounding ? __half2float(__float2half(static_cast<float>(value))) : value;
}

std::vector<unsigned char> to_bytes(const std::vector<float>& values, bool half) {
    std::vector<unsigned char> bytes(values.size() * (half ? 2 : 4));
    for (std::size_t i = 0; i < values.size(); ++i) {
        const __half value = __float2half(values[i]);
        if (half)
            std::memcpy(&bytes[2 * i], &value, 2);
        else
            std::memcpy(&bytes[4 * i], &values[i], 4);
    }
    return bytes;
}

double read(const std::vector<unsigned char>& bytes, std::size_t at, bool half) {
    __half small;
    float large;
    if (half) std::memcpy(&small, &bytes[2 * at], 2);
    if (!half) std::memcpy(&large, &bytes[4 * at], 4);
    return half ? __half2float(small) : large;
}

bool is_half(Format format) { return format == Format::kHalfChannelLast; }

// Where each format has element (n, c, h, w).
struct Layout {
    Format format;
    int channels, h, w;

    int pitch() const { return is_half(format) ? channel_pitch(channels) : channels; }
    std::size_t at(int n, int c, int y, int x) const {
        if (format == Format::kFloatChannelFirst) return index({n, c, y, x}, {0, channels, h, w});
        return index({n, y, x, c}, {0, h, w, pitch()});
    }
    std::size_t size(int n) const { return at(n, 0, 0, 0); }
};

template <class Run>
void for_each(int n, int channels, int h, int w, Run run) {
    for (int i = 0; i < n; ++i)
        for (int c = 0; c < channels; ++c)
            for (int y = 0; y < h; ++y)
                for (int x = 0; x < w; ++x) run(i, c, y, x);
}

// From n, c, h, w. Lanes that only pad are NaN: nothing may depend on them.
std::vector<unsigned char> laid_out(const std::vector<float>& values, int n, const Layout& layout) {
    std::vector<float> moved(layout.size(n), std::numeric_limits<float>::quiet_NaN());
    for_each(n, layout.channels, layout.h, layout.w, [&](int i, int c, int y, int x) {
        moved[layout.at(i, c, y, x)] =
            values[index({i, c, y, x}, {n, layout.channels, layout.h, layout.w})];
    });
    return to_bytes(moved, is_half(layout.format));
}

}  // namespace

Problem::Problem(bool residual, int n, int h, int w)
    : residual(residual),
      n(n),
      h(h),
      w(w),
      h_out((h + kPads[0] + kPads[2] - kDilations[0] * (kKernelH - 1) - 1) / kStrides[0] + 1),
      w_out((w + kPads[1] + kPads[3] - kDilations[1] * (kKernelW - 1) - 1) / kStrides[1] + 1) {
    std::mt19937 random{11};
    first = draw(kRIn * kC, 1 / std::sqrt(kC), random);
    first_bias = draw(kRIn, .5, random);
    core =
        draw(kKernelH * kKernelW * kROut * kRIn, 1 / std::sqrt(kKernelH * kKernelW * kRIn), random);
    core_bias = draw(kROut, .5, random);
    last = draw(kM * kROut, 1 / std::sqrt(kROut), random);
    bias = draw(kM, .5, random);
    x = draw(index({n, 0, 0, 0}, {0, kC, h, w}), 1, random);
    r = draw(index({n, 0, 0, 0}, {0, kM, h_out, w_out}), 1, random);
    exact_ = reference(false);
    half_ = reference(true);
}

const plugin::Operator& Problem::op() const {
    return residual ? plugin::kTuckerConvAdd : plugin::kTuckerConv;
}

plugin::Attributes Problem::attributes(std::vector<int> tactics) {
    return {{kStrides[0], kStrides[1]},
            {kDilations[0], kDilations[1]},
            {kPads[0], kPads[1], kPads[2], kPads[3]},
            kFirstSlope,
            kCoreSlope,
            kSlope,
            std::move(tactics)};
}

std::vector<Shape> Problem::inputs() const {
    std::vector<Shape> shapes = {
        {n, kC, h, w}, {kRIn, kC},  {kRIn}, {kKernelH, kKernelW, kROut, kRIn},
        {kROut},       {kM, kROut}, {kM}};
    if (residual) shapes.push_back(output());
    return shapes;
}

std::vector<std::vector<unsigned char>> Problem::pack(Format format) const {
    std::vector<std::vector<unsigned char>> packed = {laid_out(x, n, {format, kC, h, w})};
    for (const auto* weight : {&first, &first_bias, &core, &core_bias, &last, &bias})
        packed.push_back(to_bytes(*weight, is_half(format)));
    if (residual) packed.push_back(laid_out(r, n, {format, kM, h_out, w_out}));
    return packed;
}

std::vector<unsigned char> Problem::empty_output(Format format) const {
    const Layout layout{format, kM, h_out, w_out};
    return to_bytes(std::vector<float>(layout.size(n), std::numeric_limits<float>::quiet_NaN()),
                    is_half(format));
}

Problem::Result Problem::reference(bool rounding) const {
    Result result{Doubles(r.size()), 0};
    Doubles t1(index({n, 0, 0, 0}, {0, kRIn, h, w})), size1(t1.size());
    for_each(n, kRIn, h, w, [&](int i, int o, int y, int xx) {
        const auto at = index({i, o, y, xx}, {n, kRIn, h, w});
        double sum = first_bias[static_cast<std::size_t>(o)], size = std::abs(sum);
        for (int c = 0; c < kC; ++c) {
            const double term = static_cast<double>(first[index({o, c}, {0, kC})]) *
                                static_cast<double>(x[index({i, c, y, xx}, {n, kC, h, w})]);
            sum += term, size += std::abs(term);
        }
        t1[at] = rounded(activated(sum, kFirstSlope), rounding), size1[at] = size;
    });

    Doubles t2(index({n, 0, 0, 0}, {0, kROut, h_out, w_out})), size2(t2.size());
    for_each(n, kROut, h_out, w_out, [&](int i, int o, int y, int xx) {
        double sum = core_bias[static_cast<std::size_t>(o)], size = std::abs(sum);
        for_each(1, kRIn, kKernelH, kKernelW, [&](int, int c, int ky, int kx) {
            const int iy = y * kStrides[0] - kPads[0] + ky * kDilations[0];
            const int ix = xx * kStrides[1] - kPads[1] + kx * kDilations[1];
            if (iy < 0 || iy >= h || ix < 0 || ix >= w) return;
            const auto from = index({i, c, iy, ix}, {n, kRIn, h, w});
            const double weight = core[index({ky, kx, o, c}, {0, kKernelW, kROut, kRIn})];
            sum += weight * t1[from], size += std::abs(weight) * size1[from];
        });
        const auto at = index({i, o, y, xx}, {n, kROut, h_out, w_out});
        t2[at] = rounded(activated(sum, kCoreSlope), rounding), size2[at] = size;
    });

    for_each(n, kM, h_out, w_out, [&](int i, int o, int y, int xx) {
        const auto at = index({i, o, y, xx}, {n, kM, h_out, w_out});
        double sum = bias[static_cast<std::size_t>(o)] + (residual ? r[at] : 0.F);
        double size = std::abs(sum);
        for (int c = 0; c < kROut; ++c) {
            const auto from = index({i, c, y, xx}, {n, kROut, h_out, w_out});
            const double weight = last[index({o, c}, {0, kROut})];
            sum += weight * t2[from], size += std::abs(weight) * size2[from];
        }
        result.y[at] = rounded(activated(sum, kSlope), rounding);
        result.magnitude = std::max(result.magnitude, size);
    });
    return result;
}

bool Problem::is_right(const std::vector<unsigned char>& y, Format format, int tactic) const {
    const Result &expected = exact_, &half = half_;
    const Layout layout{format, kM, h_out, w_out};
    double error = 0;
    for_each(n, kM, h_out, w_out, [&](int i, int c, int yy, int xx) {
        const double got = read(y, layout.at(i, c, yy, xx), is_half(format));
        const double difference =
            std::abs(got - expected.y[index({i, c, yy, xx}, {n, kM, h_out, w_out})]);
        if (!(difference <= error)) error = difference;  // NaN stays
    });
    bool zeros = true;
    for_each(n, layout.pitch() - kM, h_out, w_out, [&](int i, int c, int yy, int xx) {
        zeros &= read(y, layout.at(i, kM + c, yy, xx), is_half(format)) == 0;
    });

    // fp16: twice what rounding T1, T2 and Y costs, since every implementation rounds those. fp32:
    // a unit in the last place for every term that is summed; tf32 also rounds T1 and T2 to 2^-11.
    double bound = 0;
    for (std::size_t i = 0; i < half.y.size(); ++i)
        bound = std::max(bound, 2 * std::abs(half.y[i] - expected.y[i]));
    Tactic decoded{};
    decode(tactic, decoded);
    const double terms = kC + kRIn * kKernelH * kKernelW + kROut + 10;
    if (!is_half(format)) bound = expected.magnitude * terms * 0x1p-24;
    if (decoded.arithmetic == Arithmetic::kTf32) bound += expected.magnitude * 2 * 0x1p-11;

    const bool right = error <= bound && zeros;
    if (!right)
        std::fprintf(stderr, "%s in %s: error %g, bound %g, padding lanes %s\n",
                     describe(tactic).c_str(), name_of(format).c_str(), error, bound,
                     zeros ? "zero" : "NOT zero");
    return right;
}

}  // namespace tdc::test
