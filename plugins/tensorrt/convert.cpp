#include "tensorrt/convert.h"

#include <string>
#include <type_traits>
#include <utility>

#include "tensorrt/core/error.h"

namespace tdc::plugin {

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IDimensionExpr;
using nvinfer1::IExprBuilder;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

namespace {

const IDimensionExpr* constant(int64_t value, IExprBuilder& builder) {
    using Size = std::remove_reference_t<decltype(std::declval<Dims>().d[0])>;
    return builder.constant(static_cast<Size>(value));
}

const IDimensionExpr* size_after(const IDimensionExpr& size, OutputSize rule,
                                 IExprBuilder& builder) {
    const auto* padded =
        builder.operation(DimensionOperation::kSUM, size, *constant(rule.extra, builder));
    const auto* steps =
        builder.operation(DimensionOperation::kFLOOR_DIV, *padded, *constant(rule.stride, builder));
    return builder.operation(DimensionOperation::kSUM, *steps, *constant(1, builder));
}

}  // namespace

Shape to_shape(const Dims& dims) {
    return dims.nbDims > 0 ? Shape(dims.d, dims.d + dims.nbDims) : Shape();
}

std::optional<Format> to_format(const nvinfer1::PluginTensorDesc& tensor) {
    if (tensor.type == DataType::kHALF && tensor.format == TensorFormat::kHWC8)
        return Format::kHalfChannelLast;
    if (tensor.type == DataType::kFLOAT && tensor.format == TensorFormat::kHWC)
        return Format::kFloatChannelLast;
    if (tensor.type == DataType::kFLOAT && tensor.format == TensorFormat::kLINEAR)
        return Format::kFloatChannelFirst;
    return std::nullopt;
}

Format format_or_throw(const nvinfer1::PluginTensorDesc& x) {
    const std::optional<Format> format = to_format(x);
    if (!format)
        reject("input X",
               "type " + std::to_string(static_cast<int>(x.type)) + " in format " +
                   std::to_string(static_cast<int>(x.format)),
               "FP16 (1) in kHWC8 (2), or FP32 (0) in kHWC (8) or kLINEAR (0)");
    return *format;
}

std::vector<Field> to_fields(const nvinfer1::PluginFieldCollection& collection) {
    std::vector<Field> fields;
    for (int i = 0; i < collection.nbFields; ++i) {
        const PluginField& field = collection.fields[i];
        FieldType type = FieldType::kOther;
        if (field.type == PluginFieldType::kINT32) type = FieldType::kInt32;
        if (field.type == PluginFieldType::kFLOAT32) type = FieldType::kFloat32;
        if (field.type == PluginFieldType::kCHAR) type = FieldType::kChars;
        fields.push_back({field.name ? field.name : "", type, field.data, field.length});
    }
    return fields;
}

std::vector<PluginField> from_fields(const std::vector<Field>& fields) {
    std::vector<PluginField> converted;
    for (const Field& field : fields) {
        PluginFieldType type = PluginFieldType::kCHAR;
        if (field.type == FieldType::kInt32) type = PluginFieldType::kINT32;
        if (field.type == FieldType::kFloat32) type = PluginFieldType::kFLOAT32;
        converted.emplace_back(field.name, field.data, type, field.length);
    }
    return converted;
}

std::vector<Shape> shapes_of(const PluginTensorDesc* tensors, int count) {
    std::vector<Shape> shapes;
    for (int i = 0; i < count; ++i) shapes.push_back(to_shape(tensors[i].dims));
    return shapes;
}

std::vector<Shape> shapes_of(const DynamicPluginTensorDesc* tensors, int count) {
    std::vector<Shape> shapes;
    for (int i = 0; i < count; ++i) shapes.push_back(to_shape(tensors[i].desc.dims));
    return shapes;
}

std::vector<Shape> shapes_of(const DynamicPluginTensorDesc* tensors, int count,
                             Dims DynamicPluginTensorDesc::* end) {
    std::vector<Shape> shapes = shapes_of(tensors, count);
    for (int i = 0; i < count; ++i)
        for (std::size_t axis = 0; axis < shapes[static_cast<std::size_t>(i)].size(); ++axis) {
            int64_t& size = shapes[static_cast<std::size_t>(i)][axis];
            if (size == -1) size = (tensors[i].*end).d[axis];
        }
    return shapes;
}

std::vector<Shape> shapes_of(const DimsExprs* tensors, int count) {
    std::vector<Shape> shapes(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i)
        for (int axis = 0; axis < tensors[i].nbDims; ++axis) {
            const IDimensionExpr& size = *tensors[i].d[axis];
            shapes[static_cast<std::size_t>(i)].push_back(
                size.isConstant() ? size.getConstantValue() : -1);
        }
    return shapes;
}

DimsExprs output_sizes(const DimsExprs& x, const Attributes& attributes,
                       const TuckerConvParams& layer, IExprBuilder& builder) {
    DimsExprs y{};
    y.nbDims = 4;
    y.d[0] = x.d[0];
    y.d[1] = constant(layer.m, builder);
    y.d[2] = size_after(*x.d[2], output_height(attributes, layer), builder);
    y.d[3] = size_after(*x.d[3], output_width(attributes, layer), builder);
    return y;
}

}  // namespace tdc::plugin
