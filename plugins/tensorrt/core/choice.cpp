#include "tensorrt/core/choice.h"

#include <algorithm>

#include "tensorrt/core/error.h"

namespace tdc::plugin {
namespace {

Format format_of(const Tactic& tactic) {
    if (tactic.arithmetic == Arithmetic::kF16) return Format::kHalfChannelLast;
    return tactic.family == Family::kChannelFirst ? Format::kFloatChannelFirst
                                                  : Format::kFloatChannelLast;
}

bool is_exact(int number) {
    Tactic tactic{};
    return decode(number, tactic) && tactic.arithmetic != Arithmetic::kTf32;
}

std::string text_of(const TuckerConvParams& p) {
    return "C " + std::to_string(p.c) + ", r_in " + std::to_string(p.r_in) + ", r_out " +
           std::to_string(p.r_out) + ", M " + std::to_string(p.m) + ", kernel " +
           std::to_string(p.kernel_h) + "x" + std::to_string(p.kernel_w) + ", strides " +
           to_text(std::vector<int>{p.stride_h, p.stride_w}) + ", dilations " +
           to_text(std::vector<int>{p.dilation_h, p.dilation_w});
}

}  // namespace

std::string name_of(Format format) {
    switch (format) {
        case Format::kHalfChannelLast:
            return "FP16 kHWC8";
        case Format::kFloatChannelLast:
            return "FP32 kHWC";
        case Format::kFloatChannelFirst:
            return "FP32 kLINEAR";
    }
    return "";
}

bool has_format(int number, Format format) {
    Tactic tactic{};
    return decode(number, tactic) && format_of(tactic) == format;
}

std::vector<int> valid_tactics(const Attributes& attributes, Format format,
                               const TuckerConvParams& layer, const Device& device) {
    const bool given = !attributes.tactics.empty();
    std::vector<int> valid;
    for (const int number : given ? attributes.tactics : all_tactics())
        if (has_format(number, format) && (given || is_exact(number)) &&
            is_legal(number, layer, device))
            valid.push_back(number);
    return valid;
}

bool may_have(const Attributes& attributes, Format format) {
    const std::vector<int32_t>& tactics = attributes.tactics;
    return tactics.empty() || std::any_of(tactics.begin(), tactics.end(),
                                          [=](int number) { return has_format(number, format); });
}

void reject_layer(const Attributes& attributes, const std::string& format,
                  const TuckerConvParams& layer, const Device& device) {
    std::string offered = "every tactic";
    if (!attributes.tactics.empty()) {
        offered = "the node's tactics";
        for (const int number : attributes.tactics) offered += " '" + describe(number) + "'";
    }
    throw PluginError("no kernel runs this layer as " + format + ": received " + text_of(layer) +
                      "; tried " + offered + " on " + to_text(device) +
                      ". Expected ranks that are multiples of 8, and a tactic whose tile fits");
}

std::string to_text(const Device& device) {
    return "compute capability " + std::to_string(device.compute_capability / 10) + "." +
           std::to_string(device.compute_capability % 10) + " with " +
           std::to_string(device.shared_bytes) + " bytes of shared memory a block";
}

Device device_or_throw() {
    Device device{};
    const cudaError_t error = current_device(device);
    if (error != cudaSuccess)
        throw PluginError(std::string("the current CUDA device: ") + cudaGetErrorString(error));
    return device;
}

}  // namespace tdc::plugin
