// The layer that the adapters are tested with, in core's terms, and a run of it checked.
#pragma once

#include <functional>
#include <vector>

#include "../../tests/problem.h"
#include "tensorrt/core/layer.h"

namespace tdc::test {

using plugin::Format;
using plugin::Shape;

inline constexpr Format kFormats[] = {Format::kHalfChannelLast, Format::kFloatChannelLast,
                                      Format::kFloatChannelFirst};

// Sizes that tell everything apart: no two of height, width, ranks and channels agree, and neither
// channels nor M are multiples of 8. r_in is enough for splits of 2 and 4.
struct LayerCase {
    static constexpr int32_t kStrides[2] = {2, 1}, kPads[4] = {1, 2, 3, 4}, kDilations[2] = {1, 2};
    static constexpr float kFirstSlope = .5F, kCoreSlope = .25F, kSlope = .125F;

    Case sizes;

    LayerCase(bool residual, int n, int h, int w);

    const plugin::Operator& op() const;
    static plugin::Attributes attributes(std::vector<int> tactics = {});
    std::vector<Shape> inputs() const;
    Shape output() const { return {sizes.n, sizes.m, sizes.h_out(), sizes.w_out()}; }
    TuckerConvParams params() const { return shapes_of(sizes); }
    // Without the attribute, or of these.
    std::vector<int> valid_tactics(Format format, const std::vector<int>& tactics = {}) const;

    // Runs a plugin on device memory: the operator's inputs in their order, Y, the workspace. Says
    // whether it succeeds every time (twice where a launch leaves counters behind) and Y is within
    // its bounds and zero in the lanes that pad it.
    using Enqueue = std::function<bool(const void* const* inputs, void* y, void* workspace)>;
    bool is_right(int tactic, std::size_t workspace_bytes, const Enqueue& enqueue) const;
};

}  // namespace tdc::test
