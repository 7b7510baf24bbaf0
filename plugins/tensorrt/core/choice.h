// Which formats and tactics a layer may have.
#pragma once

#include <string>
#include <vector>

#include "tdc/tactics.h"
#include "tensorrt/core/attributes.h"

namespace tdc::plugin {

// Type and layout of X, R and Y. All other inputs are linear, of X's type.
enum class Format {
    kHalfChannelLast,    // FP16, kHWC8
    kFloatChannelLast,   // FP32, kHWC
    kFloatChannelFirst,  // FP32, kLINEAR
};
std::string name_of(Format format);
bool has_format(int tactic, Format format);

// The tactics that the layer may be run with, best guess first: those of the attribute that have
// the format and are legal, in its order; without the attribute every legal one that is exact to
// the type (fp32 then excludes tf32: a plugin is not told whether the builder allows it).
std::vector<int> valid_tactics(const Attributes& attributes, Format format,
                               const TuckerConvParams& layer, const Device& device);

// Whether a tactic of the attribute has the format, legal or not; true without the attribute.
bool may_have(const Attributes& attributes, Format format);

// Throws PluginError that says what no kernel runs.
[[noreturn]] void reject_layer(const Attributes& attributes, const std::string& format,
                               const TuckerConvParams& layer, const Device& device);

// Such as "compute capability 9.0 with 232448 bytes of shared memory a block".
std::string to_text(const Device& device);

// The current device; throws PluginError if there is none.
Device device_or_throw();

}  // namespace tdc::plugin
