// The operators' inputs and what their shapes must be to each other.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tdc/tucker_conv.h"
#include "tensorrt/core/attributes.h"

namespace tdc::plugin {

struct Operator {
    const char* name;
    bool has_residual;

    int inputs() const { return has_residual ? 8 : 7; }
};
inline constexpr Operator kTuckerConv{"TuckerConv", false}, kTuckerConvAdd{"TuckerConvAdd", true};

enum Input { kX, kFirst, kFirstBias, kCore, kCoreBias, kLast, kBias, kR };

// Sizes of a tensor; -1 where not known yet.
using Shape = std::vector<int64_t>;

// The layer that the inputs' shapes make, its pointers null. n, h, w, h_out and w_out are 0 where
// not known. `output` is Y's shape or null. Throws PluginError, naming the input (or Y), if the
// shapes disagree, a weight's is not known, or the kernel is larger than the padded map.
TuckerConvParams make_layer(const Operator& op, const Attributes& attributes,
                            const std::vector<Shape>& inputs, const Shape* output = nullptr);

// What h_out is for h = `size`, as `(size + extra) / stride` rounded down, and + 1; w alike.
struct OutputSize {
    int64_t extra;
    int64_t stride;
};
OutputSize output_height(const Attributes& attributes, const TuckerConvParams& layer);
OutputSize output_width(const Attributes& attributes, const TuckerConvParams& layer);

}  // namespace tdc::plugin
