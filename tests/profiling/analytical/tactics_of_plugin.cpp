// Prints the plugin's tactics, then answers questions from standard input: a line of
//     number compute_capability shared_bytes n h w c h_out w_out m r_in r_out kernel_h kernel_w
//     stride_h stride_w pad_top pad_left dilation_h dilation_w
// gets "is_legal workspace_bytes". Only the host's side is compiled; nothing can be launched.
#include <iostream>

#include "kernels/channel_first_launch.h"
#include "kernels/families.h"
#include "kernels/fused_launch.h"
#include "kernels/unfused_launch.h"

namespace tdc::fused {
#define TDC_FUSED_F16(h, w, r, wm, wn, c, s) {{h, w, r, c, s, 8}, nullptr, nullptr},
const Entry kF16[] = {
#include "kernels/configs.def"
};
#define TDC_FUSED_TF32(h, w, r, wm, wn, c, s) {{h, w, r, c, s, 4}, nullptr, nullptr},
const Entry kTf32[] = {
#include "kernels/configs.def"
};
#define TDC_FUSED_F32(h, w, r, wm, wn, c, s) {{h, w, r, c, s, 4}, nullptr, nullptr},
const Entry kF32[] = {
#include "kernels/configs.def"
};
}  // namespace tdc::fused

namespace tdc::unfused {
#define TDC_UNFUSED_F16(r, c, wm, wn, s) {{r, c, s, 8}, nullptr, nullptr},
const Entry kF16[] = {
#include "kernels/configs.def"
};
#define TDC_UNFUSED_TF32(r, c, wm, wn, s) {{r, c, s, 4}, nullptr, nullptr},
const Entry kTf32[] = {
#include "kernels/configs.def"
};
#define TDC_UNFUSED_F32(r, c, wm, wn, s) {{r, c, s, 4}, nullptr, nullptr},
const Entry kF32[] = {
#include "kernels/configs.def"
};
}  // namespace tdc::unfused

namespace tdc {
cudaError_t core::load(int) { return cudaErrorNotSupported; }
cudaError_t core::launch(int, const CoreParams&, cudaStream_t) { return cudaErrorNotSupported; }
cudaError_t pointwise::load() { return cudaErrorNotSupported; }
cudaError_t pointwise::launch(const Params&, cudaStream_t) { return cudaErrorNotSupported; }
cudaError_t current_device(Device&) { return cudaErrorNotSupported; }
}  // namespace tdc

int main() {
    for (const int number : tdc::all_tactics())
        std::cout << number << " " << tdc::describe(number) << "\n";
    std::cout << "\n";
    int number = 0;
    tdc::Device device{};
    tdc::TuckerConvParams p{};
    while (std::cin >> number >> device.compute_capability >> device.shared_bytes >> p.n >> p.h >>
           p.w >> p.c >> p.h_out >> p.w_out >> p.m >> p.r_in >> p.r_out >> p.kernel_h >>
           p.kernel_w >> p.stride_h >> p.stride_w >> p.pad_top >> p.pad_left >> p.dilation_h >>
           p.dilation_w)
        std::cout << tdc::is_legal(number, p, device) << " " << tdc::workspace_bytes(number, p)
                  << "\n";
}
