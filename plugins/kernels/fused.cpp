// The fused family: what its tactics take and where they are legal.
#include "kernels/families.h"
#include "kernels/fused_launch.h"

namespace tdc {
namespace {

const fused::Entry& entry(const Tactic& t) {
    switch (t.arithmetic) {
        case Arithmetic::kF16:
            return fused::kF16[t.config];
        case Arithmetic::kTf32:
            return fused::kTf32[t.config];
        case Arithmetic::kF32:
            break;
    }
    return fused::kF32[t.config];
}

// False where Layout's ints might overflow; no shared memory holds such a halo.
bool halo_can_fit(const TuckerConvParams& p, const fused::Sizes& s) {
    constexpr long long kMost = 1 << 10;
    const auto side = [](long long tile, long long stride, long long kernel, long long dilation) {
        return (tile - 1) * stride + (kernel - 1) * dilation + 1;
    };
    return side(s.tile_h, p.stride_h, p.kernel_h, p.dilation_h) <= kMost &&
           side(s.tile_w, p.stride_w, p.kernel_w, p.dilation_w) <= kMost;
}

bool fused_is_legal(const Tactic& t, const TuckerConvParams& p, const Device& device) {
    const bool cluster = t.split == Split::kCluster;
    if (device.compute_capability < (cluster ? 90 : 80)) return false;
    if (p.r_in % 8 || p.r_out % 8 || p.r_in / 8 < t.parts) return false;
    if (cluster && ceil_div(p.m, 8) < t.parts) return false;  // a share of M for every block
    if (!halo_can_fit(p, entry(t).sizes)) return false;
    return fused::shared_bytes(p, entry(t).sizes, t.split, t.parts) <= device.shared_bytes;
}

std::size_t fused_workspace(const Tactic& t, const TuckerConvParams& p) {
    if (t.split != Split::kTicket) return 0;
    const fused::Sizes& s = entry(t).sizes;
    return static_cast<std::size_t>(fused::tile_count(p, s)) * static_cast<std::size_t>(t.parts) *
           static_cast<std::size_t>(s.tile_h * s.tile_w * p.r_out) * sizeof(float);
}

std::size_t fused_counters(const Tactic& t, const TuckerConvParams& p) {
    if (t.split != Split::kTicket) return 0;
    return static_cast<std::size_t>(fused::tile_count(p, entry(t).sizes));
}

cudaError_t fused_load(const Tactic& t) { return entry(t).load(); }

cudaError_t fused_launch(const Tactic& t, const TuckerConvParams& p, cudaStream_t stream) {
    return entry(t).launch(p, t.split, t.parts, stream);
}

}  // namespace

const FamilyFunctions kFusedFamily = {fused_is_legal, fused_workspace, fused_counters, fused_load,
                                      fused_launch};

}  // namespace tdc
