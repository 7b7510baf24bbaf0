// The fused fp16 kernel against the operator's definition in float64, in every configuration.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "check.h"
#include "emulator/half.h"
#include "tdc/tactics.h"

namespace {

struct Case {
    const char* name;
    int n, h, w, c, m, r_in, r_out, kernel_h, kernel_w, stride_h, stride_w;
    int top, left, bottom, right, dilation_h, dilation_w;
    bool residual;
    float first_slope, core_slope, slope;
};

// clang-format off
const Case kCases[] = {
    //                      n   h   w   c    m  ri  ro kh kw sh sw  t  l  b  r dh dw  res  slopes
    {"plain 3x3",           1, 14, 14,  64,  64, 16, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, 1},
    {"residual and relu",   2,  9, 11,  32,  48, 16, 24, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0},
    {"stride 2, odd map",   1, 15, 13,  64, 128, 32, 32, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, false, 1, 1, 0},
    {"C and M not of 8",    1,  7,  7,  19,  21,  8,  8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0},
    {"C of 8, M odd",       1,  8,  8,  40,   5, 16,  8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, .1F},
    {"bottleneck",          1, 14, 14,  96,  96, 40, 40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 0, 0, 0},
    {"ranks over a pass",   1,  7,  7, 128, 136, 96, 72, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, .2F, .3F, 1},
    {"1x1 core",            1,  5,  6,  32,  32, 16, 16, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, false, 1, 1, 1},
    {"5x5, dilated",        1, 12, 12,  24,  24,  8, 16, 5, 5, 1, 1, 4, 4, 4, 4, 2, 2, false, 1, 0, 1},
    {"1x7, padded left",    1,  9, 16,  16,  16,  8,  8, 1, 7, 1, 1, 0, 6, 0, 0, 1, 1, false, 0, 1, 1},
    {"7x7, stride 2",       1, 19, 17,  16,  32,  8,  8, 7, 7, 2, 2, 3, 3, 3, 3, 1, 1, false, 1, 1, 0},
    {"no padding",          3,  6, 10,  32,  32, 16, 16, 3, 3, 1, 2, 0, 0, 0, 0, 1, 1, false, 1, 1, 0},
    {"one pixel",           1,  1,  1,  64,  64, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0},
};
// clang-format on

using Doubles = std::vector<double>;

struct Halves {
    std::vector<__half> values;
    Doubles exact;

    // Normal values of this deviation, rounded to fp16, and the same as float64.
    Halves(std::size_t count, double deviation, std::mt19937& random)
        : values(count), exact(count) {
        std::normal_distribution<float> normal(0.0F, static_cast<float>(deviation));
        for (std::size_t i = 0; i < count; ++i) {
            values[i] = __float2half(normal(random));
            exact[i] = __half2float(values[i]);
        }
    }
};

std::size_t size(int a, int b, int c = 1, int d = 1) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c) *
           static_cast<std::size_t>(d);
}

struct Problem {
    const Case& k;
    int h_out, w_out;
    std::mt19937 random{7};
    Halves x, residual, first, first_bias, core, core_bias, last, bias;

    static int out(int in, int before, int after, int kernel, int stride, int dilation) {
        return (in + before + after - dilation * (kernel - 1) - 1) / stride + 1;
    }

    explicit Problem(const Case& k)
        : k(k),
          h_out(out(k.h, k.top, k.bottom, k.kernel_h, k.stride_h, k.dilation_h)),
          w_out(out(k.w, k.left, k.right, k.kernel_w, k.stride_w, k.dilation_w)),
          x(size(k.n, k.h, k.w, k.c), 1, random),
          residual(size(k.n, h_out, w_out, k.m), 1, random),
          first(size(k.r_in, k.c), 1 / std::sqrt(k.c), random),
          first_bias(size(k.r_in, 1), 0.5, random),
          core(size(k.kernel_h, k.kernel_w, k.r_out, k.r_in),
               1 / std::sqrt(k.r_in * k.kernel_h * k.kernel_w), random),
          core_bias(size(k.r_out, 1), 0.5, random),
          last(size(k.m, k.r_out), 1 / std::sqrt(k.r_out), random),
          bias(size(k.m, 1), 0.5, random) {}

    // The operator's definition. With `rounding`, T1, T2 and Y are rounded to fp16: the error that
    // no fp16 implementation of this operator avoids.
    Doubles reference(bool rounding) const {
        const Doubles t1 = reduced(rounding), t2 = convolved(t1, rounding);
        Doubles y(size(k.n, h_out, w_out, k.m));
        const std::size_t depth = static_cast<std::size_t>(k.r_out);
        const std::size_t m = static_cast<std::size_t>(k.m);
        for (std::size_t i = 0; i < y.size(); ++i) {
            double sum = bias.exact[i % m] + (k.residual ? residual.exact[i] : 0);
            for (std::size_t r = 0; r < depth; ++r)
                sum += t2[i / m * depth + r] * last.exact[i % m * depth + r];
            y[i] = rounded(activated(sum, k.slope), rounding);
        }
        return y;
    }

    Doubles reduced(bool rounding) const {
        const std::size_t rank = static_cast<std::size_t>(k.r_in);
        const std::size_t depth = static_cast<std::size_t>(k.c);
        Doubles t1(size(k.n, k.h, k.w, k.r_in));
        for (std::size_t i = 0; i < t1.size(); ++i) {
            double sum = first_bias.exact[i % rank];
            for (std::size_t c = 0; c < depth; ++c)
                sum += x.exact[i / rank * depth + c] * first.exact[i % rank * depth + c];
            t1[i] = rounded(activated(sum, k.first_slope), rounding);
        }
        return t1;
    }

    Doubles convolved(const Doubles& t1, bool rounding) const {
        Doubles t2(size(k.n, h_out, w_out, k.r_out));
        std::size_t i = 0;
        for (int n = 0; n < k.n; ++n)
            for (int y = 0; y < h_out; ++y)
                for (int xx = 0; xx < w_out; ++xx)
                    for (int r = 0; r < k.r_out; ++r, ++i)
                        t2[i] = rounded(activated(convolution(t1, n, y, xx, r), k.core_slope),
                                        rounding);
        return t2;
    }

    double convolution(const Doubles& t1, int n, int y, int xx, int r) const {
        double sum = core_bias.exact[static_cast<std::size_t>(r)];
        for (int ky = 0; ky < k.kernel_h; ++ky)
            for (int kx = 0; kx < k.kernel_w; ++kx) {
                const int iy = y * k.stride_h - k.top + ky * k.dilation_h;
                const int ix = xx * k.stride_w - k.left + kx * k.dilation_w;
                if (iy < 0 || iy >= k.h || ix < 0 || ix >= k.w) continue;
                const std::size_t pixel =
                    (size(n, k.h) + static_cast<std::size_t>(iy)) * static_cast<std::size_t>(k.w) +
                    static_cast<std::size_t>(ix);
                const std::size_t row = (size(ky, k.kernel_w) + static_cast<std::size_t>(kx)) *
                                            static_cast<std::size_t>(k.r_out) +
                                        static_cast<std::size_t>(r);
                const std::size_t depth = static_cast<std::size_t>(k.r_in);
                for (std::size_t c = 0; c < depth; ++c)
                    sum += t1[pixel * depth + c] * core.exact[row * depth + c];
            }
        return sum;
    }

    static double activated(double value, float slope) {
        return value >= 0 ? value : static_cast<double>(slope) * value;
    }
    static double rounded(double value, bool rounding) {
        return rounding ? __half2float(__float2half(static_cast<float>(value))) : value;
    }
};

// Channel-last with the channels padded to a multiple of 8; the padding lanes hold NaN, which a
// kernel that trusts them spreads.
std::vector<__half> padded(const std::vector<__half>& values, int channels) {
    const std::size_t c = static_cast<std::size_t>(channels);
    const std::size_t pitch = static_cast<std::size_t>(tdc::channel_pitch(channels));
    std::vector<__half> out(values.size() / c * pitch, __ushort_as_half(0x7fff));
    for (std::size_t i = 0; i < values.size(); ++i) out[i / c * pitch + i % c] = values[i];
    return out;
}

tdc::TuckerConvParams params_of(const Problem& p) {
    const Case& k = p.k;
    tdc::TuckerConvParams q{};
    q.first = p.first.values.data();
    q.first_bias = p.first_bias.values.data();
    q.core = p.core.values.data();
    q.core_bias = p.core_bias.values.data();
    q.last = p.last.values.data();
    q.bias = p.bias.values.data();
    q.n = k.n, q.h = k.h, q.w = k.w, q.c = k.c;
    q.h_out = p.h_out, q.w_out = p.w_out, q.m = k.m;
    q.r_in = k.r_in, q.r_out = k.r_out;
    q.kernel_h = k.kernel_h, q.kernel_w = k.kernel_w;
    q.stride_h = k.stride_h, q.stride_w = k.stride_w;
    q.pad_top = k.top, q.pad_left = k.left;
    q.dilation_h = k.dilation_h, q.dilation_w = k.dilation_w;
    q.first_slope = k.first_slope, q.core_slope = k.core_slope, q.slope = k.slope;
    return q;
}

double largest_difference(const Doubles& a, const Doubles& b) {
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double difference = std::abs(a[i] - b[i]);
        if (!(difference <= largest)) largest = difference;  // NaN stays
    }
    return largest;
}

// Runs one configuration; true if Y is right and its padding lanes are zeros.
bool run(const Problem& problem, int tactic) {
    const Case& k = problem.k;
    tdc::TuckerConvParams p = params_of(problem);
    const std::vector<__half> x = padded(problem.x.values, k.c);
    const std::vector<__half> residual = padded(problem.residual.values, k.m);
    std::vector<__half> y(residual.size(), __ushort_as_half(0x7fff));
    p.x = x.data();
    p.residual = k.residual ? residual.data() : nullptr;
    p.y = y.data();
    std::vector<float> workspace(tdc::workspace_bytes(tactic, p) / 4, NAN);
    std::vector<unsigned> counters(tdc::counter_count(tactic, p));
    p.workspace = workspace.data();
    p.counters = counters.data();
    if (tdc::launch(tactic, p, nullptr) != cudaSuccess) return false;
    for (unsigned c : counters) CHECK(c == 0);

    const Doubles expected = problem.reference(false);
    Doubles got(expected.size());
    const std::size_t m = static_cast<std::size_t>(k.m);
    const std::size_t pitch = static_cast<std::size_t>(tdc::channel_pitch(k.m));
    bool zeros = true;
    for (std::size_t i = 0; i < y.size(); ++i) {
        const double value = __half2float(y[i]);
        if (i % pitch < m)
            got[i / pitch * m + i % pitch] = value;
        else
            zeros &= value == 0;
    }
    // Twice what rounding T1, T2 and Y to fp16 costs in exact arithmetic: the kernel rounds the
    // same three, and sums in fp32.
    const double bound = 2 * largest_difference(problem.reference(true), expected);
    const double error = largest_difference(got, expected);
    const bool right = error <= bound && zeros;
    if (!right)
        std::printf("%s, tactic %d: error %g, bound %g, padding lanes %s\n", k.name, tactic, error,
                    bound, zeros ? "zero" : "NOT zero");
    return right;
}

}  // namespace

int main() {
    const tdc::Device device{90, 227 * 1024, 108};
    for (const Case& k : kCases) {
        const Problem problem(k);
        int legal = 0;
        for (const int tactic : tdc::all_tactics()) {
            tdc::Tactic t{};
            CHECK(tdc::decode(tactic, t));
            if (t.arithmetic != tdc::Arithmetic::kF16 || !tdc::is_legal(tactic, params_of(problem), device)) continue;
            ++legal;
            CHECK(run(problem, tactic));
        }
        CHECK(legal > 0);
    }
    return tdc::test::result();
}
