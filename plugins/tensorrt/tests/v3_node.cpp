#include "v3_node.h"

namespace tdc::test {

using namespace nvinfer1;

Plugin::Plugin(IPluginV3* plugin) : owner(plugin) {
    if (!plugin) return;
    const auto capability = [&](PluginCapabilityType type) {
        return plugin->getCapabilityInterface(type);
    };
    core = static_cast<IPluginV3OneCore*>(capability(PluginCapabilityType::kCORE));
    build = static_cast<IPluginV3OneBuild*>(capability(PluginCapabilityType::kBUILD));
    runtime = static_cast<IPluginV3OneRuntime*>(capability(PluginCapabilityType::kRUNTIME));
}

Tensors::Tensors(const LayerCase& smallest, Format format, const LayerCase* largest)
    : inputs(smallest.op().inputs()) {
    const std::vector<PluginTensorDesc> low = describe_tensors(smallest, format);
    const std::vector<PluginTensorDesc> high =
        describe_tensors(largest ? *largest : smallest, format);
    for (std::size_t i = 0; i < low.size(); ++i) {
        DynamicPluginTensorDesc tensor{low[i], low[i].dims, high[i].dims, high[i].dims};
        for (const int axis : {0, 2, 3})
            if (largest && has_x_format(static_cast<int>(i))) tensor.desc.dims.d[axis] = -1;
        all.push_back(tensor);
    }
}

std::vector<PluginTensorDesc> Tensors::fixed() const {
    std::vector<PluginTensorDesc> tensors;
    for (const DynamicPluginTensorDesc& tensor : all) tensors.push_back(tensor.desc);
    return tensors;
}

bool supports(IPluginV3OneBuild& plugin, const Tensors& tensors) {
    std::vector<DynamicPluginTensorDesc> shown(tensors.all.size());
    for (DynamicPluginTensorDesc& tensor : shown) {
        tensor.desc = {{-1, {}}, static_cast<DataType>(99), static_cast<TensorFormat>(99), 0};
        tensor.min = tensor.max = tensor.opt = {-1, {}};
    }
    for (int i = 0; i <= tensors.inputs; ++i) {
        shown[static_cast<std::size_t>(i)] = tensors.all[static_cast<std::size_t>(i)];
        if (!plugin.supportsFormatCombination(i, shown.data(), tensors.inputs, 1)) return false;
    }
    return true;
}

Shape infer(IPluginV3OneBuild& plugin, const std::vector<Shape>& inputs) {
    Expressions expressions(inputs);
    DimsExprs output{};
    if (plugin.getOutputShapes(expressions.inputs(), static_cast<int32_t>(inputs.size()), nullptr,
                               0, &output, 1, expressions.builder()))
        return {};
    return expressions.evaluate(output);
}

bool run(IPluginV3OneRuntime& plugin, const LayerCase& problem, Format format, int tactic,
         std::size_t workspace) {
    const Tensors tensors(problem, format);
    const std::vector<PluginTensorDesc> fixed = tensors.fixed();
    const PluginTensorDesc* out = fixed.data() + tensors.inputs;
    if (plugin.onShapeChange(fixed.data(), tensors.inputs, out, 1)) return false;
    return problem.is_right(
        tactic, workspace, [&](const void* const* inputs, void* y, void* scratch) {
            return !plugin.enqueue(fixed.data(), out, inputs, &y, scratch, nullptr);
        });
}

}  // namespace tdc::test
