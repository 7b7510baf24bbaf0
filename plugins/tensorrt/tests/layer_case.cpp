#include "layer_case.h"

#include "../../tests/device_problem.h"

namespace tdc::test {

// clang-format off
LayerCase::LayerCase(bool residual, int n, int h, int w)
    : sizes{"plugin", n, h, w, 20, 12, 40, 16, 3, 5, kStrides[0], kStrides[1],
            kPads[0], kPads[1], kPads[2], kPads[3], kDilations[0], kDilations[1],
            residual, kFirstSlope, kCoreSlope, kSlope} {}
// clang-format on

const plugin::Operator& LayerCase::op() const {
    return sizes.residual ? plugin::kTuckerConvAdd : plugin::kTuckerConv;
}

plugin::Attributes LayerCase::attributes(std::vector<int> tactics) {
    return {{kStrides[0], kStrides[1]},
            {kDilations[0], kDilations[1]},
            {kPads[0], kPads[1], kPads[2], kPads[3]},
            kFirstSlope,
            kCoreSlope,
            kSlope,
            std::move(tactics)};
}

std::vector<Shape> LayerCase::inputs() const {
    const Case& s = sizes;
    std::vector<Shape> shapes = {{s.n, s.c, s.h, s.w},
                                 {s.r_in, s.c},
                                 {s.r_in},
                                 {s.kernel_h, s.kernel_w, s.r_out, s.r_in},
                                 {s.r_out},
                                 {s.m, s.r_out},
                                 {s.m}};
    if (s.residual) shapes.push_back(output());
    return shapes;
}

std::vector<int> LayerCase::valid_tactics(Format format, const std::vector<int>& tactics) const {
    return plugin::valid_tactics(attributes(tactics), format, params(), plugin::device_or_throw());
}

bool LayerCase::is_right(int tactic, std::size_t bytes, const Enqueue& enqueue) const {
    Tactic decoded{};
    if (!decode(tactic, decoded)) return false;
    const Problem problem(sizes, decoded.arithmetic);
    const DeviceProblem device(problem, decoded.family);
    const TuckerConvParams p = device.params();
    const void* const inputs[] = {p.x,         p.first, p.first_bias, p.core,
                                  p.core_bias, p.last,  p.bias,       p.residual};
    const DeviceArray workspace(bytes);
    const int launches = counter_count(tactic, params()) ? 2 : 1;
    for (int i = 0; i < launches; ++i)
        if (!enqueue(inputs, p.y, workspace.data())) return false;

    const Bounds bounds = problem.bounds();
    const Output output = device.output();
    bool right = output.zero_padding;
    for (std::size_t i = 0; i < output.values.size(); ++i)
        right &= bounds.low[i] <= output.values[i] && output.values[i] <= bounds.high[i];
    return right;
}

}  // namespace tdc::test
