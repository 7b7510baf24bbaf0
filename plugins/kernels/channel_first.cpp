// The channel-first family: TDC's core kernel between two 1x1 kernels, T1 and T2 (fp32, channel
// first) in the workspace. The first launch also sets T2 to zero, to which the core kernel adds;
// T2's bias and activation are applied by the last launch, as it reads.
#include "kernels/channel_first_launch.h"
#include "kernels/families.h"

namespace tdc {
namespace {

constexpr core::Config kConfigs[] = {
#define TDC_CHANNEL_FIRST_F32(h, w, c) {h, w, c},
#include "kernels/configs.def"
};

std::size_t size(int a, int b, int c, int d) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c) *
           static_cast<std::size_t>(d);
}
std::size_t t1_size(const TuckerConvParams& p) { return size(p.n, p.r_in, p.h, p.w); }
std::size_t t2_size(const TuckerConvParams& p) { return size(p.n, p.r_out, p.h_out, p.w_out); }

// The core convolution of a layer; its tensors are the launch's.
CoreParams core_of(const TuckerConvParams& p) {
    CoreParams core{};
    core.weights = static_cast<const float*>(p.core);
    core.n = p.n, core.h = p.h, core.w = p.w, core.c = p.r_in;
    core.h_out = p.h_out, core.w_out = p.w_out, core.m = p.r_out;
    core.kernel_h = p.kernel_h, core.kernel_w = p.kernel_w;
    core.stride_h = p.stride_h, core.stride_w = p.stride_w;
    core.pad_top = p.pad_top, core.pad_left = p.pad_left;
    core.dilation_h = p.dilation_h, core.dilation_w = p.dilation_w;
    return core;
}

bool fits_int(long long count) { return count <= 0x7fffffff; }

pointwise::Params first_of(const TuckerConvParams& p, float* t1, float* t2) {
    pointwise::Params first{};
    first.x = static_cast<const float*>(p.x);
    first.weights = static_cast<const float*>(p.first);
    first.bias = static_cast<const float*>(p.first_bias);
    first.y = t1;
    first.slope = p.first_slope;
    first.n = p.n, first.c = p.c, first.m = p.r_in, first.pixels = p.h * p.w;
    first.zeros = t2;
    first.zero_count = static_cast<long long>(t2_size(p));
    return first;
}

pointwise::Params last_of(const TuckerConvParams& p, const float* t2) {
    pointwise::Params last{};
    last.x = t2;
    last.weights = static_cast<const float*>(p.last);
    last.bias = static_cast<const float*>(p.bias);
    last.residual = static_cast<const float*>(p.residual);
    last.y = static_cast<float*>(p.y);
    last.input_bias = static_cast<const float*>(p.core_bias);
    last.input_slope = p.core_slope;
    last.slope = p.slope;
    last.n = p.n, last.c = p.r_out, last.m = p.m, last.pixels = p.h_out * p.w_out;
    return last;
}

bool channel_first_is_legal(const Tactic& t, const TuckerConvParams& p, const Device& device) {
    return std::size_t{pointwise::kSharedBytes} <= device.shared_bytes &&
           core::shared_bytes(kConfigs[t.config], core_of(p)) <= device.shared_bytes;
}

std::size_t channel_first_workspace(const Tactic&, const TuckerConvParams& p) {
    return (t1_size(p) + t2_size(p)) * sizeof(float);
}

std::size_t no_counters(const Tactic&, const TuckerConvParams&) { return 0; }

cudaError_t channel_first_load(const Tactic& t) {
    const cudaError_t error = pointwise::load();
    return error == cudaSuccess ? core::load(t.config) : error;
}

cudaError_t channel_first_launch(const Tactic& t, const TuckerConvParams& p, cudaStream_t stream) {
    if (!fits_int(1LL * p.h * p.w) || !fits_int(1LL * p.h_out * p.w_out))
        return cudaErrorInvalidConfiguration;
    auto* const t1 = static_cast<float*>(p.workspace);
    float* const t2 = t1 + t1_size(p);
    cudaError_t error = pointwise::launch(first_of(p, t1, t2), stream);
    if (error != cudaSuccess) return error;
    CoreParams core = core_of(p);
    core.x = t1;
    core.y = t2;
    error = core::launch(t.config, core, stream);
    if (error != cudaSuccess) return error;
    return pointwise::launch(last_of(p, t2), stream);
}

}  // namespace

const FamilyFunctions kChannelFirstFamily = {channel_first_is_legal, channel_first_workspace,
                                             no_counters, channel_first_load, channel_first_launch};

}  // namespace tdc
