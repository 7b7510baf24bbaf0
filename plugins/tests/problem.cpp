#include "problem.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "rounding.h"

namespace tdc::test {
namespace {

using Doubles = std::vector<double>;

// Of fp32 sums; tensor cores may truncate where IEEE sums round by half of this.
constexpr double kUnit = 0x1p-23;
// Random parts add up to less than this many times the root of their summed squares.
constexpr double kSigmas = 4;

std::size_t product(int a, int b, int c = 1, int d = 1) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c) *
           static_cast<std::size_t>(d);
}

Doubles draw(std::size_t count, double deviation, Arithmetic arithmetic, std::mt19937& random) {
    std::normal_distribution<double> normal(0, deviation);
    Doubles values(count);
    for (double& value : values)
        value = arithmetic == Arithmetic::kF16 ? rounded_to_f16(normal(random))
                                               : rounded_to_f32(normal(random));
    return values;
}

// The rounding of what enters a product.
double operand(double value, Arithmetic arithmetic) {
    switch (arithmetic) {
        case Arithmetic::kF16:
            return rounded_to_f16(value);
        case Arithmetic::kTf32:
            return rounded_to_tf32(value);
        case Arithmetic::kF32:
            break;
    }
    return value;  // rounded like a sum, within its bound
}

Doubles operands(Doubles values, Arithmetic arithmetic) {
    for (double& value : values) value = operand(value, arithmetic);
    return values;
}

// Elements, each with how far a kernel's may be from it.
struct Values {
    Doubles value, error;
};

// One of the operator's three stages. A 1x1 convolution has the default window.
struct Stage {
    int n, h, w, c;
    int h_out, w_out, channels;
    float slope;
    int kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, top = 0, left = 0;
    int dilation_h = 1, dilation_w = 1;
};

// A sum, the sum of its squared terms, and what the input's errors may do to it: at the very most,
// and squared if they are independent.
struct Sum {
    double value = 0, squares = 0, most_error = 0, squared_error = 0;

    void add(double term, double error) {
        value += term;
        squares += term * term;
        most_error += error;
        squared_error += error * error;
    }
    // How far a kernel's sum of `count` terms may be from this one.
    double error(double count) const {
        const double partial = std::fabs(value) + kSigmas * std::sqrt(squares);
        return kSigmas * kUnit * std::sqrt(count) * partial +
               std::min(most_error, kSigmas * std::sqrt(squared_error));
    }
};

double activated(double value, float slope) {
    return value >= 0 ? value : static_cast<double>(slope) * value;
}

struct Interval {
    double low, high;
};

// What an activation makes of a sum between two numbers. One with a slope below zero falls, then
// rises: it is least at zero.
Interval activated(const Interval& sum, float slope) {
    const double a = activated(sum.low, slope), b = activated(sum.high, slope);
    const bool around_zero = sum.low < 0 && sum.high > 0;
    return {around_zero ? std::min({a, b, 0.0}) : std::min(a, b), std::max(a, b)};
}

// Adds one tap's channels to the sum.
void add_pixel(Sum& sum, const double* value, const double* error, const double* weight, int c) {
    for (int i = 0; i < c; ++i) sum.add(value[i] * weight[i], error[i] * std::fabs(weight[i]));
}

Sum convolve(const Stage& s, const Values& input, const Doubles& weights, int image, int y, int x,
             int channel) {
    Sum sum;
    for (int ky = 0; ky < s.kernel_h; ++ky)
        for (int kx = 0; kx < s.kernel_w; ++kx) {
            const int iy = y * s.stride_h - s.top + ky * s.dilation_h;
            const int ix = x * s.stride_w - s.left + kx * s.dilation_w;
            if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w) continue;
            const std::size_t pixel =
                product(image, s.h, s.w, s.c) + product(iy, s.w, s.c) + product(ix, s.c);
            const int tap = ky * s.kernel_w + kx;
            add_pixel(sum, &input.value[pixel], &input.error[pixel],
                      &weights[product(tap, s.channels, s.c) + product(channel, s.c)], s.c);
        }
    return sum;
}

// One stage. `added` (the residual) may be null; `round` is the rounding of what is stored.
template <class Round>
Values run_stage(const Stage& s, const Values& input, const Doubles& weights, const Doubles& bias,
                 const Doubles* added, Round round) {
    const std::size_t count = product(s.n, s.h_out, s.w_out, s.channels);
    // Bias, residual and the activation's product are three terms more.
    const double terms = static_cast<double>(product(s.kernel_h, s.kernel_w, s.c)) + 3;
    Values output{Doubles(count), Doubles(count)};
    for (std::size_t i = 0; i < count; ++i) {
        const int pixel = static_cast<int>(i) / s.channels;
        const int channel = static_cast<int>(i) % s.channels;
        Sum sum = convolve(s, input, weights, pixel / (s.h_out * s.w_out),
                           pixel / s.w_out % s.h_out, pixel % s.w_out, channel);
        sum.add(bias[static_cast<std::size_t>(channel)], 0);
        if (added) sum.add((*added)[i], 0);
        const double error = sum.error(terms);
        const Interval possible = activated({sum.value - error, sum.value + error}, s.slope);
        const double value = round(activated(sum.value, s.slope));
        output.value[i] = value;
        output.error[i] = std::max(round(possible.high) - value, value - round(possible.low));
    }
    return output;
}

}  // namespace

TuckerConvParams shapes_of(const Case& k) {
    TuckerConvParams p{};
    p.n = k.n, p.h = k.h, p.w = k.w, p.c = k.c;
    p.h_out = k.h_out(), p.w_out = k.w_out(), p.m = k.m;
    p.r_in = k.r_in, p.r_out = k.r_out;
    p.kernel_h = k.kernel_h, p.kernel_w = k.kernel_w;
    p.stride_h = k.stride_h, p.stride_w = k.stride_w;
    p.pad_top = k.top, p.pad_left = k.left;
    p.dilation_h = k.dilation_h, p.dilation_w = k.dilation_w;
    p.first_slope = k.first_slope, p.core_slope = k.core_slope, p.slope = k.slope;
    return p;
}

Problem::Problem(const Case& k, Arithmetic a) : layer(k), arithmetic(a) {
    std::mt19937 random(7);
    const int taps = k.kernel_h * k.kernel_w;
    x = draw(product(k.n, k.h, k.w, k.c), 1, a, random);
    residual = draw(product(k.n, k.h_out(), k.w_out(), k.m), 1, a, random);
    first = draw(product(k.r_in, k.c), 1 / std::sqrt(k.c), a, random);
    first_bias = draw(product(k.r_in, 1), 0.5, a, random);
    core = draw(product(taps, k.r_out, k.r_in), 1 / std::sqrt(k.r_in * taps), a, random);
    core_bias = draw(product(k.r_out, 1), 0.5, a, random);
    last = draw(product(k.m, k.r_out), 1 / std::sqrt(k.r_out), a, random);
    bias = draw(product(k.m, 1), 0.5, a, random);
}

Bounds Problem::bounds() const {
    const Case& k = layer;
    const auto to_operand = [this](double value) { return operand(value, arithmetic); };
    const auto to_stored = [this](double value) {
        return arithmetic == Arithmetic::kF16 ? rounded_to_f16(value) : value;
    };
    const int h_out = k.h_out(), w_out = k.w_out();
    const Stage reduce{k.n, k.h, k.w, k.c, k.h, k.w, k.r_in, k.first_slope};
    const Stage core_stage{k.n,     k.h,          k.w,          k.r_in,      h_out,      w_out,
                           k.r_out, k.core_slope, k.kernel_h,   k.kernel_w,  k.stride_h, k.stride_w,
                           k.top,   k.left,       k.dilation_h, k.dilation_w};
    const Stage expand{k.n, h_out, w_out, k.r_out, h_out, w_out, k.m, k.slope};

    const Values input{operands(x, arithmetic), Doubles(x.size())};
    const Values t1 =
        run_stage(reduce, input, operands(first, arithmetic), first_bias, nullptr, to_operand);
    const Values t2 =
        run_stage(core_stage, t1, operands(core, arithmetic), core_bias, nullptr, to_operand);
    const Values y = run_stage(expand, t2, operands(last, arithmetic), bias,
                               k.residual ? &residual : nullptr, to_stored);
    Bounds bounds{y.value, y.value};
    for (std::size_t i = 0; i < y.value.size(); ++i) {
        bounds.low[i] -= y.error[i];
        bounds.high[i] += y.error[i];
    }
    return bounds;
}

}  // namespace tdc::test
