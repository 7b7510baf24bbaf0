// TDC's core convolution alone (kernels/channel_first.h) in float64's bounds, in all
// configurations.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "check.h"
#include "device_problem.h"
#include "kernels/channel_first.h"

namespace {

using tdc::test::Bounds;
using tdc::test::Case;
using tdc::test::DeviceArray;
using tdc::test::DeviceProblem;
using tdc::test::Problem;

constexpr int kConfigs[] = {
#define TDC_CHANNEL_FIRST_F32(...) __COUNTER__,
#include "kernels/configs.def"
};
constexpr int kConfigCount = static_cast<int>(std::size(kConfigs));

// clang-format off
const Case kCases[] = {
    //                     n   h   w   c   m   ri   ro kh kw sh sw  t  l  b  r dh dw
    {"3x3",                1,  7,  9, 64, 32,  64,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, 1},
    {"odd channels",       2,  8,  7, 13, 27,  13,  27, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, 1},
    {"more than threads",  1,  5,  6, 20, 300, 20, 300, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, 1},
    {"strided, dilated",   1, 13, 12, 24, 16,  24,  16, 5, 3, 2, 1, 3, 0, 1, 2, 1, 2, false, 1, 1, 1},
};
// clang-format on

void make_identity(std::vector<double>& matrix, int size) {
    std::fill(matrix.begin(), matrix.end(), 0);
    for (int i = 0; i < size; ++i) matrix[static_cast<std::size_t>(i * (size + 1))] = 1;
}

// A chain whose 1x1 convolutions do nothing.
Problem core_alone(const Case& layer) {
    Problem problem(layer, tdc::Arithmetic::kF32);
    make_identity(problem.first, layer.c);
    make_identity(problem.last, layer.m);
    for (auto* bias : {&problem.first_bias, &problem.core_bias, &problem.bias})
        std::fill(bias->begin(), bias->end(), 0);
    return problem;
}

// From [taps, out, in] to [in, taps, out].
std::vector<float> in_paper_order(const Problem& problem) {
    const int taps = problem.layer.kernel_h * problem.layer.kernel_w;
    const int in = problem.layer.r_in, out = problem.layer.r_out;
    std::vector<float> weights;
    for (int c = 0; c < in; ++c)
        for (int tap = 0; tap < taps; ++tap)
            for (int m = 0; m < out; ++m)
                weights.push_back(static_cast<float>(
                    problem.core[static_cast<std::size_t>((tap * out + m) * in + c)]));
    return weights;
}

tdc::CoreParams params_of(const Case& k, const DeviceProblem& problem, const DeviceArray& weights) {
    tdc::CoreParams p{};
    p.x = static_cast<const float*>(problem.params().x);
    p.weights = static_cast<const float*>(weights.data());
    p.y = static_cast<float*>(problem.y.data());
    p.n = k.n, p.h = k.h, p.w = k.w, p.c = k.c;
    p.h_out = k.h_out(), p.w_out = k.w_out(), p.m = k.m;
    p.kernel_h = k.kernel_h, p.kernel_w = k.kernel_w;
    p.stride_h = k.stride_h, p.stride_w = k.stride_w;
    p.pad_top = k.top, p.pad_left = k.left;
    p.dilation_h = k.dilation_h, p.dilation_w = k.dilation_w;
    return p;
}

// Whether each element is `times` one that the bounds allow.
bool within(const Bounds& bounds, const std::vector<double>& y, double times) {
    for (std::size_t i = 0; i < y.size(); ++i)
        if (!(y[i] >= times * bounds.low[i] && y[i] <= times * bounds.high[i])) return false;
    return true;
}

void check_case(const Case& layer) {
    const Problem problem = core_alone(layer);
    const Bounds bounds = problem.bounds();
    DeviceProblem on_device(problem, tdc::Family::kChannelFirst);
    const DeviceArray weights(in_paper_order(problem));
    const tdc::CoreParams params = params_of(layer, on_device, weights);
    for (int config = 0; config < kConfigCount; ++config) {
        on_device.y.fill(0);
        for (const double times : {1, 2}) {  // it adds to Y
            CHECK(tdc::tdc_core_launch(config, params, nullptr) == cudaSuccess);
            CHECK(cudaDeviceSynchronize() == cudaSuccess);
            const bool right = within(bounds, on_device.output().values, times);
            CHECK(right);
            if (!right) std::fprintf(stderr, "  \"%s\" in configuration %d\n", layer.name, config);
        }
    }
    CHECK(tdc::tdc_core_launch(kConfigCount, params, nullptr) == cudaErrorInvalidValue);
    CHECK(tdc::tdc_core_launch(-1, params, nullptr) == cudaErrorInvalidValue);
}

}  // namespace

int main() {
    for (const Case& layer : kCases) check_case(layer);
    return tdc::test::result();
}
