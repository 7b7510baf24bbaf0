#include "v3_node.h"

#include <algorithm>
#include <deque>

namespace tdc::test {

using namespace nvinfer1;

namespace {

PluginField int32s(const char* name, const int32_t* values, int32_t count) {
    return {name, values, PluginFieldType::kINT32, count};
}
PluginField float32(const char* name, const float* value) {
    return {name, value, PluginFieldType::kFLOAT32, 1};
}

Dims to_dims(const Shape& shape) {
    Dims dims{static_cast<int32_t>(shape.size()), {}};
    std::copy(shape.begin(), shape.end(), dims.d);
    return dims;
}

bool has_x_format(int i) { return i == plugin::kX || i >= plugin::kR; }

DataType type_of(Format format) {
    return format == Format::kHalfChannelLast ? DataType::kHALF : DataType::kFLOAT;
}

TensorFormat layout_of(Format format) {
    switch (format) {
        case Format::kHalfChannelLast:
            return TensorFormat::kHWC8;
        case Format::kFloatChannelLast:
            return TensorFormat::kHWC;
        case Format::kFloatChannelFirst:
            break;
    }
    return TensorFormat::kLINEAR;
}

// An expression that knows its value, and whether TensorRT would know it.
struct Expression final : IDimensionExpr, apiv::VDimensionExpr {
    int64_t value;
    bool constant;

    Expression(int64_t value, bool constant) : value(value), constant(constant) { mImpl = this; }
    bool isConstant() const override { return constant; }
    int64_t getConstantValue() const override { return constant ? value : -99; }
    bool isSizeTensor() const override { return false; }
};

struct Builder final : IExprBuilder, apiv::VExprBuilder {
    std::deque<Expression> all;

    Builder() { mImpl = this; }
    const IDimensionExpr* make(int64_t value, bool constant) {
        return &all.emplace_back(value, constant);
    }
    const IDimensionExpr* constant(int64_t value) override { return make(value, true); }
    const IDimensionExpr* operation(DimensionOperation operation, const IDimensionExpr& first,
                                    const IDimensionExpr& second) override {
        const auto &a = static_cast<const Expression&>(first),
                   &b = static_cast<const Expression&>(second);
        const bool constant = a.constant && b.constant;
        switch (operation) {
            case DimensionOperation::kSUM:
                return make(a.value + b.value, constant);
            case DimensionOperation::kFLOOR_DIV:
                return make(a.value / b.value, constant);
            default:
                return nullptr;
        }
    }
    const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                            const IDimensionExpr&) override {
        return nullptr;
    }
};

}  // namespace

NodeFields::NodeFields(std::vector<int> tactics) : tactics_(std::move(tactics)) {
    fields_ = {int32s("strides", Problem::kStrides, 2),
               int32s("pads", Problem::kPads, 4),
               int32s("dilations", Problem::kDilations, 2),
               float32("first_slope", &Problem::kFirstSlope),
               float32("core_slope", &Problem::kCoreSlope),
               float32("slope", &Problem::kSlope),
               {"plugin_version", "1", PluginFieldType::kCHAR, 2},
               {"plugin_namespace", "", PluginFieldType::kCHAR, 1}};
    if (!tactics_.empty())
        set(int32s("tactics", tactics_.data(), static_cast<int32_t>(tactics_.size())));
}

NodeFields& NodeFields::set(PluginField field) {
    remove(field.name);
    fields_.push_back(field);
    return *this;
}

NodeFields& NodeFields::remove(const std::string& name) {
    fields_.erase(std::remove_if(fields_.begin(), fields_.end(),
                                 [&](const PluginField& field) { return field.name == name; }),
                  fields_.end());
    return *this;
}

const PluginFieldCollection* NodeFields::collection() {
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    return &collection_;
}

Plugin::Plugin(IPluginV3* plugin) : owner(plugin) {
    if (!plugin) return;
    const auto capability = [&](PluginCapabilityType type) {
        return plugin->getCapabilityInterface(type);
    };
    core = static_cast<IPluginV3OneCore*>(capability(PluginCapabilityType::kCORE));
    build = static_cast<IPluginV3OneBuild*>(capability(PluginCapabilityType::kBUILD));
    runtime = static_cast<IPluginV3OneRuntime*>(capability(PluginCapabilityType::kRUNTIME));
}

Tensors::Tensors(const Problem& smallest, Format format, const Problem* largest)
    : inputs(smallest.residual ? 8 : 7) {
    const auto shapes_of = [](const Problem& problem) {
        std::vector<Shape> shapes = problem.inputs();
        shapes.push_back(problem.output());
        return shapes;
    };
    const std::vector<Shape> low = shapes_of(smallest),
                             high = shapes_of(largest ? *largest : smallest);
    for (int i = 0; i <= inputs; ++i) {
        const auto at = static_cast<std::size_t>(i);
        Shape shape = low[at];
        for (const std::size_t axis : {std::size_t{0}, std::size_t{2}, std::size_t{3}})
            if (largest && has_x_format(i)) shape[axis] = -1;
        DynamicPluginTensorDesc tensor{};
        tensor.desc.dims = to_dims(shape);
        tensor.desc.type = type_of(format);
        tensor.desc.format = has_x_format(i) ? layout_of(format) : TensorFormat::kLINEAR;
        tensor.min = to_dims(low[at]);
        tensor.opt = tensor.max = to_dims(high[at]);
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
    Builder builder;
    std::vector<DimsExprs> expressions;
    for (const Shape& shape : inputs) {
        DimsExprs tensor{static_cast<int32_t>(shape.size()), {}};
        const bool is_open = &shape == &inputs[plugin::kX];
        for (std::size_t axis = 0; axis < shape.size(); ++axis)
            tensor.d[axis] = builder.make(shape[axis], !is_open || axis == 1);
        expressions.push_back(tensor);
    }
    DimsExprs output{};
    if (plugin.getOutputShapes(expressions.data(), static_cast<int32_t>(inputs.size()), nullptr, 0,
                               &output, 1, builder))
        return {};
    Shape sizes;
    for (int axis = 0; axis < output.nbDims; ++axis) {
        const auto& size = static_cast<const Expression&>(*output.d[axis]);
        sizes.push_back(size.constant == (axis == 1) ? size.value : -1);
    }
    return sizes;
}

bool run(IPluginV3OneRuntime& plugin, const Problem& problem, Format format, int tactic,
         std::size_t workspace) {
    const Tensors tensors(problem, format);
    const std::vector<PluginTensorDesc> fixed = tensors.fixed();
    const PluginTensorDesc* out = fixed.data() + tensors.inputs;
    if (plugin.onShapeChange(fixed.data(), tensors.inputs, out, 1)) return false;
    const auto packed = problem.pack(format);
    std::vector<const void*> inputs;
    for (const auto& input : packed) inputs.push_back(input.data());
    // Of the exact size, so that AddressSanitizer sees what lies beyond; NaN, as nobody wrote it.
    std::vector<unsigned char> y = problem.empty_output(format), scratch(workspace, 0xFF);
    void* outputs[] = {y.data()};
    // Twice where there are counters: what a launch leaves behind must not disturb the next.
    const bool counts = counter_count(tactic, problem.layer()) > 0;
    for (int i = 0; i <= counts; ++i)
        if (plugin.enqueue(fixed.data(), out, inputs.data(), outputs, scratch.data(), nullptr))
            return false;
    return problem.is_right(y, format, tactic);
}

}  // namespace tdc::test
