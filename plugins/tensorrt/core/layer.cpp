#include "tensorrt/core/layer.h"

#include <algorithm>
#include <utility>

#include "tensorrt/core/error.h"

namespace tdc::plugin {
namespace {

bool is_half(Format format) { return format == Format::kHalfChannelLast; }

std::size_t largest_counter_count(const std::vector<int>& tactics, const TuckerConvParams& layer) {
    std::size_t largest = 0;
    for (const int tactic : tactics) largest = std::max(largest, counter_count(tactic, layer));
    return largest;
}

std::array<int32_t, 6> sizes_of(const TuckerConvParams& p) {
    return {p.c, p.r_in, p.r_out, p.m, p.kernel_h, p.kernel_w};
}

void check(cudaError_t error, const char* doing, int tactic) {
    if (error != cudaSuccess)
        throw PluginError(std::string(doing) + " '" + tdc::describe(tactic) +
                          "': " + cudaGetErrorString(error));
}

}  // namespace

Layer::Layer(const Operator& op, Attributes attributes)
    : op_(&op), attributes_(std::move(attributes)) {}

Layer::Layer(const Layer& other)
    : op_(other.op_),
      attributes_(other.attributes_),
      format_(other.format_),
      layer_(other.layer_),
      tactics_(other.tactics_),
      tactic_(other.tactic_),
      running_(other.running_) {}

bool Layer::supports(Format format, const std::vector<Shape>& inputs, const Shape& output) const {
    const TuckerConvParams layer = make_layer(*op_, attributes_, inputs, &output);
    const Device device = device_or_throw();
    if (!valid_tactics(attributes_, format, layer, device).empty()) return true;
    for (const Format other : {Format::kFloatChannelLast, Format::kFloatChannelFirst})
        if (!is_half(format) && !valid_tactics(attributes_, other, layer, device).empty())
            return false;
    reject_layer(attributes_, is_half(format) ? "FP16" : "FP32", layer, device);
}

void Layer::configure(Format format, const std::vector<Shape>& smallest,
                      const std::vector<Shape>& largest) {
    make_layer(*op_, attributes_, smallest);
    layer_ = make_layer(*op_, attributes_, largest);
    const Device device = device_or_throw();
    tactics_ = valid_tactics(attributes_, format, *layer_, device);
    if (tactics_.empty()) reject_layer(attributes_, name_of(format), *layer_, device);
    const auto counters = static_cast<int32_t>(largest_counter_count(tactics_, *layer_));
    attributes_.counters = std::max(attributes_.counters, counters);
    attributes_.sizes = sizes_of(*layer_);
    format_ = format;
    tactic_ = running_ = 0;  // those of the format before
}

std::size_t Layer::workspace(Format format, const std::vector<Shape>& largest) const {
    const TuckerConvParams layer = make_layer(*op_, attributes_, largest);
    std::size_t bytes = 0;
    for (const int tactic : valid_tactics(attributes_, format, layer, device_or_throw()))
        bytes = std::max(bytes, workspace_bytes(tactic, layer));
    return bytes;
}

void Layer::set_tactic(int tactic) {
    Tactic decoded{};
    if (tactic != 0 && !decode(tactic, decoded))
        reject("the tactic", std::to_string(tactic), "one of this library's");
    tactic_ = tactic;
    running_ = 0;
    // A tactic of another format belongs to shapes that are still to come.
    if (layer_ && (tactic == 0 || has_format(tactic, *format_))) prepare();
}

void Layer::set_shapes(Format format, const std::vector<Shape>& inputs, const Shape& output) {
    layer_ = make_layer(*op_, attributes_, inputs, &output);
    attributes_.sizes = sizes_of(*layer_);
    format_ = format;
    prepare();
}

void Layer::prepare() {
    const Device device = device_or_throw();
    int tactic = tactic_;
    if (tactic == 0) {
        const std::vector<int> valid = valid_tactics(attributes_, *format_, *layer_, device);
        if (valid.empty()) reject_layer(attributes_, name_of(*format_), *layer_, device);
        tactic = valid.front();
    } else if (!has_format(tactic, *format_)) {
        reject("the tactic", tdc::describe(tactic), "one for " + name_of(*format_));
    } else if (!is_legal(tactic, *layer_, device)) {
        reject("the tactic", tdc::describe(tactic),
               "one that runs on this device, of " + to_text(device) +
                   ": build the engine on the device that runs it");
    }
    counters_.reserve(counter_count(tactic, *layer_));
    check(load(tactic), "loading", tactic);
    running_ = tactic;
}

void Layer::reserve() { counters_.reserve(static_cast<std::size_t>(attributes_.counters)); }

void Layer::launch(const void* const* inputs, void* output, void* workspace, cudaStream_t stream) {
    if (!layer_ || running_ == 0)
        throw PluginError("enqueue was called before the shapes were set");
    TuckerConvParams p = *layer_;
    if (p.n == 0) return;
    p.x = inputs[kX];
    p.first = inputs[kFirst], p.first_bias = inputs[kFirstBias];
    p.core = inputs[kCore], p.core_bias = inputs[kCoreBias];
    p.last = inputs[kLast], p.bias = inputs[kBias];
    p.residual = op_->has_residual ? inputs[kR] : nullptr;
    p.y = output;
    p.workspace = workspace;
    p.counters = counters_.data();
    check(tdc::launch(running_, p, stream), "launching", running_);
}

std::string Layer::identity() const {
    return std::string(op_->name) + " " + to_text(attributes_) + " kernels " TDC_KERNEL_REVISION;
}

std::string Layer::describe() const {
    std::string text = op_->name;
    const char* const names[] = {" C ", " r_in ", " r_out ", " M ", " kernel ", "x"};
    for (std::size_t i = 0; i < attributes_.sizes.size() && attributes_.sizes[0]; ++i)
        text += names[i] + std::to_string(attributes_.sizes[i]);
    text += " " + to_text(attributes_);
    const int tactic = running_ ? running_ : tactic_;
    if (tactic) text += " tactic " + std::to_string(tactic) + " (" + tdc::describe(tactic) + ")";
    return text;
}

}  // namespace tdc::plugin
