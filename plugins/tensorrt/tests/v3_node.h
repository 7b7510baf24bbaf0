// What TensorRT does with a node whose operator is a plugin, step by step.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <optional>
#include <vector>

#include "node.h"

namespace tdc::test {

// A plugin and its capabilities.
struct Plugin {
    std::unique_ptr<nvinfer1::IPluginV3> owner;
    nvinfer1::IPluginV3OneCore* core = nullptr;
    nvinfer1::IPluginV3OneBuild* build = nullptr;
    nvinfer1::IPluginV3OneRuntime* runtime = nullptr;

    explicit Plugin(nvinfer1::IPluginV3* plugin);
    operator bool() const { return owner && core && build && runtime; }
};

struct Tensors {
    std::vector<nvinfer1::DynamicPluginTensorDesc> all;  // the inputs, then Y
    int inputs;

    // Of the problem in the format; n, h and w dynamic between the problems if there is a largest.
    Tensors(const LayerCase& smallest, Format format, const LayerCase* largest = nullptr);

    const nvinfer1::DynamicPluginTensorDesc* in() const { return all.data(); }
    const nvinfer1::DynamicPluginTensorDesc* out() const { return all.data() + inputs; }
    // Without the ranges.
    std::vector<nvinfer1::PluginTensorDesc> fixed() const;
};

// Whether the plugin accepts each tensor when it is shown nothing of those that follow.
bool supports(nvinfer1::IPluginV3OneBuild& plugin, const Tensors& tensors);

// The plugin's expressions for Y's sizes, evaluated; -1 where M is not constant or another is: X's
// n, h and w are variables with these values. Empty if the plugin refuses.
Shape infer(nvinfer1::IPluginV3OneBuild& plugin, const std::vector<Shape>& inputs);

// Sets the shapes, runs, and says whether Y is right.
bool run(nvinfer1::IPluginV3OneRuntime& plugin, const LayerCase& problem, Format format, int tactic,
         std::size_t workspace);

}  // namespace tdc::test
