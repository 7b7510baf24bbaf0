// The unfused family: the chain as three convolutions, T1 and T2 in the workspace.
#include "kernels/families.h"
#include "kernels/unfused_launch.h"

namespace tdc {
namespace {

using unfused::ConvParams;

const unfused::Entry& entry(const Tactic& t) {
    switch (t.arithmetic) {
        case Arithmetic::kF16:
            return unfused::kF16[t.config];
        case Arithmetic::kTf32:
            return unfused::kTf32[t.config];
        case Arithmetic::kF32:
            break;
    }
    return unfused::kF32[t.config];
}

std::size_t element_bytes(const Tactic& t) {
    return t.arithmetic == Arithmetic::kF16 ? sizeof(short) : sizeof(float);
}

// Bytes of [pixels, rank], in whole units of 256 so that what follows is aligned.
std::size_t tensor_bytes(const Tactic& t, int n, int h, int w, int rank) {
    const auto pixels =
        static_cast<std::size_t>(n) * static_cast<std::size_t>(h) * static_cast<std::size_t>(w);
    return (pixels * static_cast<std::size_t>(rank) * element_bytes(t) + 255) / 256 * 256;
}
std::size_t t1_bytes(const Tactic& t, const TuckerConvParams& p) {
    return tensor_bytes(t, p.n, p.h, p.w, p.r_in);
}

bool unfused_is_legal(const Tactic& t, const TuckerConvParams& p, const Device& device) {
    const auto shared = static_cast<std::size_t>(unfused::Layout(entry(t).sizes).total) * 16;
    return device.compute_capability >= 80 && p.r_in % 8 == 0 && p.r_out % 8 == 0 &&
           shared <= device.shared_bytes;
}

std::size_t unfused_workspace(const Tactic& t, const TuckerConvParams& p) {
    return t1_bytes(t, p) + tensor_bytes(t, p.n, p.h_out, p.w_out, p.r_out);
}

std::size_t unfused_counters(const Tactic&, const TuckerConvParams&) { return 0; }

// A 1x1 convolution of [n, h, w, c] to m channels.
ConvParams pointwise(int n, int h, int w, int c, int x_pitch, int m) {
    ConvParams conv{};
    conv.n = n, conv.h = conv.h_out = h, conv.w = conv.w_out = w;
    conv.c = c, conv.x_pitch = x_pitch, conv.m = m;
    conv.kernel_h = conv.kernel_w = conv.stride_h = conv.stride_w = 1;
    conv.dilation_h = conv.dilation_w = 1;
    return conv;
}

ConvParams first(const Tactic& t, const TuckerConvParams& p, void* t1) {
    const int pitch = t.arithmetic == Arithmetic::kF16 ? channel_pitch(p.c) : p.c;
    ConvParams conv = pointwise(p.n, p.h, p.w, p.c, pitch, p.r_in);
    conv.x = p.x, conv.weights = p.first, conv.bias = p.first_bias, conv.y = t1;
    conv.slope = p.first_slope;
    return conv;
}

ConvParams core(const TuckerConvParams& p, const void* t1, void* t2) {
    ConvParams conv = pointwise(p.n, p.h, p.w, p.r_in, p.r_in, p.r_out);
    conv.x = t1, conv.weights = p.core, conv.bias = p.core_bias, conv.y = t2;
    conv.h_out = p.h_out, conv.w_out = p.w_out;
    conv.kernel_h = p.kernel_h, conv.kernel_w = p.kernel_w;
    conv.stride_h = p.stride_h, conv.stride_w = p.stride_w;
    conv.pad_top = p.pad_top, conv.pad_left = p.pad_left;
    conv.dilation_h = p.dilation_h, conv.dilation_w = p.dilation_w;
    conv.slope = p.core_slope;
    return conv;
}

ConvParams last(const TuckerConvParams& p, const void* t2) {
    ConvParams conv = pointwise(p.n, p.h_out, p.w_out, p.r_out, p.r_out, p.m);
    conv.x = t2, conv.weights = p.last, conv.bias = p.bias, conv.residual = p.residual;
    conv.y = p.y, conv.slope = p.slope;
    return conv;
}

cudaError_t unfused_load(const Tactic& t) { return entry(t).load(); }

cudaError_t unfused_launch(const Tactic& t, const TuckerConvParams& p, cudaStream_t stream) {
    void* const t1 = p.workspace;
    void* const t2 = static_cast<char*>(p.workspace) + t1_bytes(t, p);
    for (const ConvParams& conv : {first(t, p, t1), core(p, t1, t2), last(p, t2)}) {
        const cudaError_t error = entry(t).launch(conv, stream);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

}  // namespace

const FamilyFunctions kUnfusedFamily = {unfused_is_legal, unfused_workspace, unfused_counters,
                                        unfused_load, unfused_launch};

}  // namespace tdc
