// Host side of the fused fp16 kernel: its configurations, what they take, and the launch.
#include "kernels/families.h"
#include "kernels/fused_f16.cuh"

namespace tdc {
namespace {

struct Config {
    int tile_h, tile_w, warps_m, warps_n;
};
#define TDC_FUSED_F16(h, w, wm, wn, c, s) {h, w, wm, wn},
#define TDC_FUSED_TF32(...)
#define TDC_FUSED_F32(...)
#define TDC_UNFUSED_F16(...)
#define TDC_UNFUSED_TF32(...)
#define TDC_UNFUSED_F32(...)
#define TDC_CHANNEL_FIRST_F32(...)
constexpr Config kConfigs[] = {
#include "kernels/configs.def"
};
#undef TDC_FUSED_F16

bool is_kernel_size(int size) { return size == 1 || size == 3 || size == 5 || size == 7; }

std::size_t shared_bytes(const Config& config, const TuckerConvParams& p) {
    const fused_f16::Geometry g(p, config.tile_h, config.tile_w);
    const int pixels = config.tile_h * config.tile_w;
    const int buffers = 2 * (pixels + fused_f16::kColumns) * fused_f16::kChunkPitch;
    const int elements = g.halo_rows * g.t1_pitch + pixels * g.t2_pitch + buffers;
    return static_cast<std::size_t>(elements) * sizeof(__half);
}

template <int TileH, int TileW, int WarpsM, int WarpsN>
cudaError_t launch_config(const Config& config, const TuckerConvParams& p, cudaStream_t stream) {
    const auto kernel = fused_f16::kernel<TileH, TileW, WarpsM, WarpsN>;
    const auto bytes = static_cast<int>(shared_bytes(config, p));
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return error;
    const int tiles = fused_f16::ceil_div(p.h_out, TileH) * fused_f16::ceil_div(p.w_out, TileW);
    const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(p.n));
    TDC_LAUNCH(kernel, grid, dim3(32 * WarpsM * WarpsN), bytes, stream, p);
    return cudaGetLastError();
}

bool fused_is_legal(const Tactic& t, const TuckerConvParams& p, const Device& device) {
    return t.arithmetic == Arithmetic::kF16 && t.split == Split::kNone &&
           device.compute_capability >= 80 && p.r_in % 8 == 0 && p.r_out % 8 == 0 &&
           is_kernel_size(p.kernel_h) && is_kernel_size(p.kernel_w) &&
           shared_bytes(kConfigs[t.config], p) <= device.shared_bytes;
}

std::size_t nothing(const Tactic&, const TuckerConvParams&) { return 0; }

cudaError_t launch_fused(const Tactic& t, const TuckerConvParams& params, cudaStream_t stream) {
    if (t.arithmetic != Arithmetic::kF16) return cudaErrorNotSupported;
    int number = -1;
#define TDC_FUSED_F16(h, w, wm, wn, c, s) \
    if (++number == t.config) return launch_config<h, w, wm, wn>(kConfigs[number], params, stream);
#include "kernels/configs.def"
    return cudaErrorInvalidValue;
}

bool not_legal(const Tactic&, const TuckerConvParams&, const Device&) { return false; }
cudaError_t no_launch(const Tactic&, const TuckerConvParams&, cudaStream_t) {
    return cudaErrorNotSupported;
}

}  // namespace

const FamilyFunctions kFusedFamily = {fused_is_legal, nothing, nothing, launch_fused};
const FamilyFunctions kUnfusedFamily = {not_legal, nothing, nothing, no_launch};
const FamilyFunctions kChannelFirstFamily = {not_legal, nothing, nothing, no_launch};

}  // namespace tdc
