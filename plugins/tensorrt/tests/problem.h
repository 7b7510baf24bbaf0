// A layer of random numbers in every format, and its result by the operator's definition in
// float64.
#pragma once

#include <cstdint>
#include <vector>

#include "tensorrt/core/layer.h"

namespace tdc::test {

using plugin::Format;
using plugin::Shape;

// Sizes that tell everything apart: no two of height, width, ranks and channels agree, and neither
// channels nor M are multiples of 8.
struct Problem {
    static constexpr int kC = 20, kM = 12, kRIn = 8, kROut = 16, kKernelH = 3, kKernelW = 5;
    static constexpr int32_t kStrides[2] = {2, 1}, kPads[4] = {1, 2, 3, 4}, kDilations[2] = {1, 2};
    static constexpr float kFirstSlope = .5F, kCoreSlope = .25F, kSlope = .125F;

    bool residual;
    int n, h, w, h_out, w_out;
    // Values that fp16 holds exactly. X and R in the order n, c, h, w; weights as the operator has
    // them.
    std::vector<float> x, first, first_bias, core, core_bias, last, bias, r;

    Problem(bool residual, int n, int h, int w);

    // Shapes of the inputs and of Y.
    std::vector<Shape> inputs() const;
    Shape output() const { return {n, kM, h_out, w_out}; }

    const plugin::Operator& op() const;
    static plugin::Attributes attributes(std::vector<int> tactics = {});
    TuckerConvParams layer() const { return plugin::make_layer(op(), attributes(), inputs()); }

    // The inputs as device memory in the format, in the operator's order.
    std::vector<std::vector<unsigned char>> pack(Format format) const;
    // As large as Y in the format, full of NaN.
    std::vector<unsigned char> empty_output(Format format) const;

    // Whether y, in the format, is right: as near to float64 as the arithmetic of the tactic
    // allows, and zero in the lanes that pad it.
    bool is_right(const std::vector<unsigned char>& y, Format format, int tactic) const;

  private:
    struct Result {
        std::vector<double> y;
        double magnitude;  // the largest sum of absolute terms, through all three stages
    };
    Result reference(bool rounded_to_half) const;

    Result exact_, half_;
};

}  // namespace tdc::test
