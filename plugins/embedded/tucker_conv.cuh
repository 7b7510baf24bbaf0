// One configuration of the fused kernel as TensorRT launches it: its PTX travels in the engine.
//
// TensorRT gives a kernel the plugin's inputs, then 32-bit integers, then its output; no workspace,
// no structure, and not more than 48 KB of shared memory. So the sizes that a batch of other shapes
// may change, and the channels, are arguments; what is left of the layer is compiled in:
//
//   TDC_EMBEDDED_ENTRY       the kernel's name
//   TDC_EMBEDDED_ARITHMETIC  F16, Tf32 or F32
//   TDC_EMBEDDED_CONFIG      tile_h, tile_w, rows, warps_m, warps_n, columns, stages
//   TDC_EMBEDDED_RESIDUAL    1 for TuckerConvAdd, else 0
//   TDC_EMBEDDED_WINDOW      kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h,
//                            dilation_w
//   TDC_EMBEDDED_SLOPES      first_slope, core_slope, slope
//
// They are undefined at the end, so that a test may include this file more than once. The grid has
// a block for every tile of every image; tdc_deploy's backends/tensorrt/embedded_plugin.py launches
// it.
#include "kernels/fused.cuh"

#if TDC_EMBEDDED_RESIDUAL
#define TDC_EMBEDDED_R(...) __VA_ARGS__
#else
#define TDC_EMBEDDED_R(...)
#endif

extern "C" __global__ void __launch_bounds__(
    tdc::fused::Config<TDC_EMBEDDED_CONFIG>::kThreads,
    tdc::fused::Block<tdc::TDC_EMBEDDED_ARITHMETIC,
                      tdc::fused::Config<TDC_EMBEDDED_CONFIG>>::kBlocks)
    TDC_EMBEDDED_ENTRY(const void* x, const void* first, const void* first_bias, const void* core,
                       const void* core_bias, const void* last, const void* bias,
                       TDC_EMBEDDED_R(const void* residual, ) int h, int w, int c, int h_out,
                       int w_out, int m, int r_in, int r_out, void* y) {
    using Block =
        tdc::fused::Block<tdc::TDC_EMBEDDED_ARITHMETIC, tdc::fused::Config<TDC_EMBEDDED_CONFIG>>;
    constexpr int kWindow[] = {TDC_EMBEDDED_WINDOW};
    constexpr float kSlopes[] = {TDC_EMBEDDED_SLOPES};
    TDC_DYNAMIC_SHARED(uint4, shared);
    if constexpr (tdc::kArchitecture >= 80) {
        tdc::TuckerConvParams p{};
        p.x = x, p.y = y;
        TDC_EMBEDDED_R(p.residual = residual;)
        p.first = first, p.first_bias = first_bias;
        p.core = core, p.core_bias = core_bias;
        p.last = last, p.bias = bias;
        p.h = h, p.w = w, p.c = c;
        p.h_out = h_out, p.w_out = w_out, p.m = m;
        p.r_in = r_in, p.r_out = r_out;
        p.kernel_h = kWindow[0], p.kernel_w = kWindow[1];
        p.stride_h = kWindow[2], p.stride_w = kWindow[3];
        p.pad_top = kWindow[4], p.pad_left = kWindow[5];
        p.dilation_h = kWindow[6], p.dilation_w = kWindow[7];
        p.first_slope = kSlopes[0], p.core_slope = kSlopes[1], p.slope = kSlopes[2];
        const tdc::fused::Layout layout(p, Block::sizes(), tdc::Split::kNone, 1);
        Block(p, layout, tdc::Split::kNone, 1, shared).run();
    }
}

#undef TDC_EMBEDDED_R
#undef TDC_EMBEDDED_ENTRY
#undef TDC_EMBEDDED_ARITHMETIC
#undef TDC_EMBEDDED_CONFIG
#undef TDC_EMBEDDED_RESIDUAL
#undef TDC_EMBEDDED_WINDOW
#undef TDC_EMBEDDED_SLOPES
