// Host side of the fused fp16 kernel: its configurations, what they take, and the launch.
#include "kernels/fused_f16.cuh"

namespace tdc {
namespace {

// Every instantiation, once: X(tile height, tile width, warps along pixels, warps along channels).
// Small tiles are for small maps and large halos, large ones reuse more of T1.
#define TDC_FUSED_F16_CONFIGS(X) \
    X(4, 4, 1, 4)                \
    X(4, 8, 2, 2)                \
    X(8, 8, 4, 1)                \
    X(8, 8, 2, 4)                \
    X(8, 16, 4, 2)

#define TDC_CONFIG(tile_h, tile_w, warps_m, warps_n) {tile_h, tile_w, warps_m, warps_n},
constexpr FusedF16Config kConfigs[] = {TDC_FUSED_F16_CONFIGS(TDC_CONFIG)};
#undef TDC_CONFIG
constexpr int kCount = sizeof kConfigs / sizeof *kConfigs;

bool is_kernel_size(int size) { return size == 1 || size == 3 || size == 5 || size == 7; }

template <int TileH, int TileW, int WarpsM, int WarpsN>
cudaError_t launch(const FusedF16Config& config, const TuckerConvParams& p, cudaStream_t stream) {
    const auto kernel = fused_f16::kernel<TileH, TileW, WarpsM, WarpsN>;
    const auto bytes = static_cast<int>(fused_f16_shared_bytes(config, p));
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return error;
    const int tiles = fused_f16::ceil_div(p.h_out, TileH) * fused_f16::ceil_div(p.w_out, TileW);
    const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(p.n));
    TDC_LAUNCH(kernel, grid, dim3(32 * WarpsM * WarpsN), bytes, stream, p);
    return cudaGetLastError();
}

}  // namespace

const FusedF16Config* fused_f16_configs(int& count) {
    count = kCount;
    return kConfigs;
}

std::size_t fused_f16_shared_bytes(const FusedF16Config& config, const TuckerConvParams& p) {
    const fused_f16::Geometry g(p, config.tile_h, config.tile_w);
    const int pixels = config.tile_h * config.tile_w;
    const int buffers = 2 * (pixels + fused_f16::kColumns) * fused_f16::kChunkPitch;
    const int elements = g.halo_rows * g.t1_pitch + pixels * g.t2_pitch + buffers;
    return static_cast<std::size_t>(elements) * sizeof(__half);
}

bool fused_f16_is_legal(const FusedF16Config& config, const TuckerConvParams& p,
                        std::size_t shared_limit) {
    return p.r_in % 8 == 0 && p.r_out % 8 == 0 && is_kernel_size(p.kernel_h) &&
           is_kernel_size(p.kernel_w) && fused_f16_shared_bytes(config, p) <= shared_limit;
}

cudaError_t fused_f16_launch(int tactic, const TuckerConvParams& params, cudaStream_t stream) {
    if (tactic < 1 || tactic > kCount) return cudaErrorInvalidValue;
    const FusedF16Config& config = kConfigs[tactic - 1];
    int number = 0;
#define TDC_LAUNCH_CONFIG(tile_h, tile_w, warps_m, warps_n) \
    if (++number == tactic) return launch<tile_h, tile_w, warps_m, warps_n>(config, params, stream);
    TDC_FUSED_F16_CONFIGS(TDC_LAUNCH_CONFIG)
#undef TDC_LAUNCH_CONFIG
    return cudaErrorInvalidValue;
}

}  // namespace tdc
