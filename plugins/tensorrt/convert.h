// TensorRT's descriptions in core's terms.
#pragma once

#include <NvInferRuntime.h>

#include <optional>
#include <vector>

#include "tensorrt/core/layer.h"

namespace tdc::plugin {

Shape to_shape(const nvinfer1::Dims& dims);

std::optional<Format> to_format(const nvinfer1::PluginTensorDesc& tensor);
// Throws PluginError where X's type and layout are none of the formats.
Format format_or_throw(const nvinfer1::PluginTensorDesc& x);

std::vector<Field> to_fields(const nvinfer1::PluginFieldCollection& fields);
std::vector<nvinfer1::PluginField> from_fields(const std::vector<Field>& fields);

std::vector<Shape> shapes_of(const nvinfer1::PluginTensorDesc* tensors, int count);
std::vector<Shape> shapes_of(const nvinfer1::DynamicPluginTensorDesc* tensors, int count);
// With the sizes that are dynamic taken from one end of the profile's range.
std::vector<Shape> shapes_of(const nvinfer1::DynamicPluginTensorDesc* tensors, int count,
                             nvinfer1::Dims nvinfer1::DynamicPluginTensorDesc::* end);
// Constant sizes; -1 for the others.
std::vector<Shape> shapes_of(const nvinfer1::DimsExprs* tensors, int count);

// Y's sizes for X's.
nvinfer1::DimsExprs output_sizes(const nvinfer1::DimsExprs& x, const Attributes& attributes,
                                 const TuckerConvParams& layer, nvinfer1::IExprBuilder& builder);

// Whether the layer takes the tensor at `position` of the inputs and Y after those before it:
// X has a format that core knows, R and Y have X's, the others are linear and of X's type; and a
// tactic runs it. Looks at tensor(0) to tensor(position) only.
template <class GetTensor>
bool supports(const Layer& layer, int position, int inputs, GetTensor tensor) {
    const nvinfer1::PluginTensorDesc &latest = tensor(position), &x = tensor(0);
    const std::optional<Format> format = to_format(x);
    if (position == 0) return format && layer.may_have(*format);
    if (!format || latest.type != x.type) return false;
    if (position < kR && position < inputs) return latest.format == nvinfer1::TensorFormat::kLINEAR;
    if (latest.format != x.format) return false;
    if (position < inputs) return true;
    std::vector<Shape> shapes;  // only now may all be looked at
    for (int i = 0; i < inputs; ++i) shapes.push_back(to_shape(tensor(i).dims));
    return layer.supports(*format, shapes, to_shape(latest.dims));
}

}  // namespace tdc::plugin
