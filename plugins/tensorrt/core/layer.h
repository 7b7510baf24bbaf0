// One node of the network: what both adapters do with it, in terms of no TensorRT.
//
// The adapters translate: TensorRT's descriptions to shapes and formats, exceptions to failures.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tensorrt/core/attributes.h"
#include "tensorrt/core/choice.h"
#include "tensorrt/core/counters.h"
#include "tensorrt/core/shapes.h"

namespace tdc::plugin {

class Layer {
  public:
    Layer(const Operator& op, Attributes attributes);
    Layer(const Layer& other);  // everything but the counters
    Layer& operator=(const Layer&) = delete;

    const Operator& op() const { return *op_; }
    const Attributes& attributes() const { return attributes_; }

    // Whether X may have the format, as far as X alone tells.
    bool may_have(Format format) const { return plugin::may_have(attributes_, format); }
    // Whether a tactic runs the layer in this format; throws PluginError where none would run it
    // in any format of this type, or the shapes disagree.
    bool supports(Format format, const std::vector<Shape>& inputs, const Shape& output) const;

    // At build time: the format, and the range of the inputs' shapes. Throws PluginError.
    void configure(Format format, const std::vector<Shape>& smallest,
                   const std::vector<Shape>& largest);
    // The format's tactics, best guess first; after configure.
    const std::vector<int>& tactics() const { return tactics_; }
    // For every valid tactic at these shapes or smaller ones.
    std::size_t workspace(Format format, const std::vector<Shape>& largest) const;

    // 0 stands for the first of the valid tactics. May come before set_shapes or after. Throws
    // PluginError if there is no such tactic or it cannot run the known shapes on this device.
    void set_tactic(int tactic);
    // The shapes that launch will see. Throws PluginError.
    void set_shapes(Format format, const std::vector<Shape>& inputs, const Shape& output);

    // Allocates what the builder found to be needed. Throws PluginError.
    void reserve();
    // After set_shapes. Allocates nothing and does not wait. Throws PluginError.
    void launch(const void* const* inputs, void* output, void* workspace, cudaStream_t stream);

    // Equal for layers that run alike.
    std::string identity() const;
    // For people: ranks and tactic.
    std::string describe() const;

  private:
    // Decides what launch runs, of format_ and layer_, and has its kernels and counters: launch may
    // be captured in a CUDA graph.
    void prepare();

    const Operator* op_;
    Attributes attributes_;
    std::optional<Format> format_;
    std::optional<TuckerConvParams> layer_;  // of the latest shapes
    std::vector<int> tactics_;
    int tactic_ = 0;   // as set
    int running_ = 0;  // what launch runs; 0: not decided
    Counters counters_;
};

}  // namespace tdc::plugin
