// TensorRT's descriptions in core's terms.
#pragma once

#include <NvInferRuntime.h>

#include <optional>
#include <vector>

#include "tensorrt/core/attributes.h"
#include "tensorrt/core/choice.h"
#include "tensorrt/core/shapes.h"

namespace tdc::plugin {

Shape to_shape(const nvinfer1::Dims& dims);

std::optional<Format> to_format(const nvinfer1::PluginTensorDesc& tensor);
// Throws PluginError where X's type and layout are none of the formats.
Format format_or_throw(const nvinfer1::PluginTensorDesc& x);

std::vector<Field> to_fields(const nvinfer1::PluginFieldCollection& fields);
std::vector<nvinfer1::PluginField> from_fields(const std::vector<Field>& fields);

// Whether the tensor at `position` suits those before it: X has a format that core knows, R and Y
// have X's, the others are linear and of X's type. Looks at in_out[0..position] only.
template <class GetTensor>
bool suits(int position, bool is_residual_or_output, GetTensor tensor_at) {
    const nvinfer1::PluginTensorDesc &tensor = tensor_at(position), &x = tensor_at(0);
    if (position == 0) return to_format(tensor).has_value();
    if (is_residual_or_output) return tensor.type == x.type && tensor.format == x.format;
    return tensor.type == x.type && tensor.format == nvinfer1::TensorFormat::kLINEAR;
}

}  // namespace tdc::plugin
