#include "tensorrt/core/shapes.h"

#include <limits>
#include <string>

#include "tensorrt/core/error.h"

namespace tdc::plugin {
namespace {

constexpr const char* kNames[] = {"X",         "first", "first_bias", "core",
                                  "core_bias", "last",  "bias",       "R"};

int narrow(const std::string& subject, int64_t size) {
    if (size > std::numeric_limits<int>::max())
        reject(subject, std::to_string(size), "a size below 2^31");
    return static_cast<int>(size);
}

// A weight: every size known.
void check_weight(int input, const Shape& shape, std::size_t rank, const char* meaning) {
    bool known = shape.size() == rank;
    for (const int64_t size : shape) known = known && size > 0;
    if (!known) reject(std::string("input ") + kNames[input], to_text(shape), meaning);
    for (const int64_t size : shape) narrow(std::string("input ") + kNames[input], size);
}

// -1 is any size, on both sides.
void check_shape(const std::string& subject, const Shape& shape, const Shape& expected,
                 const std::string& meaning) {
    bool right = shape.size() == expected.size();
    for (std::size_t i = 0; right && i < shape.size(); ++i)
        right = shape[i] == -1 || expected[i] == -1 || shape[i] == expected[i];
    if (!right) reject(subject, to_text(shape), to_text(expected) + ", which is " + meaning);
}

void check_input(int input, const Shape& shape, const Shape& expected, const char* meaning) {
    check_shape(std::string("input ") + kNames[input], shape, expected, meaning);
}

TuckerConvParams weights_of(const std::vector<Shape>& inputs) {
    const Shape &first = inputs[kFirst], &core = inputs[kCore], &last = inputs[kLast];
    check_weight(kFirst, first, 2, "constant [r_in, C]");
    check_weight(kCore, core, 4, "constant [kernel height, kernel width, r_out, r_in]");
    check_weight(kLast, last, 2, "constant [M, r_out]");
    const int64_t r_in = first[0], r_out = core[2], m = last[0];
    check_input(kX, inputs[kX], {-1, first[1], -1, -1}, "[n, C, h, w] with C as in first");
    check_input(kFirstBias, inputs[kFirstBias], {r_in}, "[r_in] as in first");
    check_input(kCore, core, {core[0], core[1], r_out, r_in},
                "[kernel height, kernel width, r_out, r_in] with r_in as in first");
    check_input(kCoreBias, inputs[kCoreBias], {r_out}, "[r_out] as in core");
    check_input(kLast, last, {m, r_out}, "[M, r_out] with r_out as in core");
    check_input(kBias, inputs[kBias], {m}, "[M] as in last");
    TuckerConvParams p{};
    p.c = static_cast<int>(first[1]), p.m = static_cast<int>(m);
    p.r_in = static_cast<int>(r_in), p.r_out = static_cast<int>(r_out);
    p.kernel_h = static_cast<int>(core[0]), p.kernel_w = static_cast<int>(core[1]);
    return p;
}

// -1 where the input's is; h_out or w_out must be at least 1.
int64_t output_size(const char* axis, int64_t size, OutputSize rule) {
    if (size == -1) return -1;
    if (size < 1 || size + rule.extra < 0)
        reject(std::string("input X: ") + axis, std::to_string(size),
               "at least " + std::to_string(rule.extra < 0 ? -rule.extra : 1) +
                   ": the kernel must fit into the padded map");
    return (size + rule.extra) / rule.stride + 1;
}

int known_or_zero(const char* subject, int64_t size) {
    return size == -1 ? 0 : narrow(subject, size);
}

}  // namespace

OutputSize output_height(const Attributes& a, const TuckerConvParams& p) {
    return {int64_t{a.pads[0]} + a.pads[2] - int64_t{a.dilations[0]} * (p.kernel_h - 1) - 1,
            a.strides[0]};
}

OutputSize output_width(const Attributes& a, const TuckerConvParams& p) {
    return {int64_t{a.pads[1]} + a.pads[3] - int64_t{a.dilations[1]} * (p.kernel_w - 1) - 1,
            a.strides[1]};
}

TuckerConvParams make_layer(const Operator& op, const Attributes& a,
                            const std::vector<Shape>& inputs, const Shape* output) {
    if (inputs.size() != static_cast<std::size_t>(op.inputs()))
        reject("the inputs", std::to_string(inputs.size()), std::to_string(op.inputs()));
    TuckerConvParams p = weights_of(inputs);
    p.stride_h = a.strides[0], p.stride_w = a.strides[1];
    p.dilation_h = a.dilations[0], p.dilation_w = a.dilations[1];
    p.pad_top = a.pads[0], p.pad_left = a.pads[1];
    p.first_slope = a.first_slope, p.core_slope = a.core_slope, p.slope = a.slope;

    const Shape& x = inputs[kX];
    const Shape y = {x[0], p.m, output_size("height", x[2], output_height(a, p)),
                     output_size("width", x[3], output_width(a, p))};
    if (op.has_residual) check_input(kR, inputs[kR], y, "Y's [n, M, h_out, w_out]");
    if (output) check_shape("output Y", *output, y, "[n, M, h_out, w_out]");
    p.n = known_or_zero("input X", x[0]);
    p.h = known_or_zero("input X", x[2]), p.w = known_or_zero("input X", x[3]);
    p.h_out = known_or_zero("output Y", y[2]), p.w_out = known_or_zero("output Y", y[3]);
    return p;
}

}  // namespace tdc::plugin
