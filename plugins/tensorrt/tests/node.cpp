#include "node.h"

#include <algorithm>
#include <deque>
#include <type_traits>

namespace tdc::test {

using namespace nvinfer1;

namespace {

PluginField int32s(const char* name, const int32_t* values, int32_t count) {
    return {name, values, PluginFieldType::kINT32, count};
}
PluginField float32(const char* name, const float* value) {
    return {name, value, PluginFieldType::kFLOAT32, 1};
}

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

using Size = std::remove_reference_t<decltype(Dims{}.d[0])>;

// An expression that knows its value, and whether TensorRT would know it.
struct Expression final : IDimensionExpr, apiv::VDimensionExpr {
    Size value;
    bool constant;

    Expression(Size value, bool constant) : value(value), constant(constant) { mImpl = this; }
    bool isConstant() const override { return constant; }
    Size getConstantValue() const override { return constant ? value : -99; }
#if NV_TENSORRT_MAJOR != 8
    bool isSizeTensor() const override { return false; }
#endif
};

}  // namespace

NodeFields::NodeFields(std::vector<int> tactics) : tactics_(std::move(tactics)) {
    fields_ = {int32s("strides", LayerCase::kStrides, 2),
               int32s("pads", LayerCase::kPads, 4),
               int32s("dilations", LayerCase::kDilations, 2),
               float32("first_slope", &LayerCase::kFirstSlope),
               float32("core_slope", &LayerCase::kCoreSlope),
               float32("slope", &LayerCase::kSlope),
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

Dims to_dims(const Shape& shape) {
    Dims dims{static_cast<int32_t>(shape.size()), {}};
    std::transform(shape.begin(), shape.end(), dims.d,
                   [](int64_t size) { return static_cast<Size>(size); });
    return dims;
}

std::vector<PluginTensorDesc> describe_tensors(const LayerCase& problem, Format format) {
    std::vector<Shape> shapes = problem.inputs();
    shapes.push_back(problem.output());
    std::vector<PluginTensorDesc> tensors;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        const bool like_x = has_x_format(static_cast<int>(i));
        tensors.push_back({to_dims(shapes[i]), type_of(format),
                           like_x ? layout_of(format) : TensorFormat::kLINEAR, 1});
    }
    return tensors;
}

struct Expressions::Builder final : IExprBuilder, apiv::VExprBuilder {
    std::deque<Expression> all;

    Builder() { mImpl = this; }
    const IDimensionExpr* make(Size value, bool constant) {
        return &all.emplace_back(value, constant);
    }
    const IDimensionExpr* constant(Size value) override { return make(value, true); }
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
#if NV_TENSORRT_MAJOR != 8
    const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                            const IDimensionExpr&) override {
        return nullptr;
    }
#endif
};

Expressions::Expressions(const std::vector<Shape>& inputs) : builder_(new Builder) {
    for (const Shape& shape : inputs) {
        DimsExprs tensor{static_cast<int32_t>(shape.size()), {}};
        const bool is_x = inputs_.empty();
        for (std::size_t axis = 0; axis < shape.size(); ++axis)
            tensor.d[axis] = builder_->make(static_cast<Size>(shape[axis]), !is_x || axis == 1);
        inputs_.push_back(tensor);
    }
}

Expressions::~Expressions() = default;

IExprBuilder& Expressions::builder() { return *builder_; }

Shape Expressions::evaluate(const DimsExprs& y) const {
    Shape sizes;
    for (int axis = 0; axis < y.nbDims; ++axis) {
        const auto& size = static_cast<const Expression&>(*y.d[axis]);
        sizes.push_back(size.constant == (axis == 1) ? size.value : -1);
    }
    return sizes;
}

}  // namespace tdc::test
