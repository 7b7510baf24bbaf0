#include "tensorrt/v3.h"

#include <algorithm>
#include <memory>

#include "tensorrt/convert.h"
#include "tensorrt/core/error.h"
#include "tensorrt/log.h"

namespace tdc::plugin {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IExprBuilder;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorRTPhase;

namespace {

constexpr int32_t kSuccess = 0, kFailure = -1;

void check_outputs(int outputs) {
    if (outputs != 1) reject("the outputs", std::to_string(outputs), "1");
}

}  // namespace

nvinfer1::IPluginCapability* PluginV3::getCapabilityInterface(PluginCapabilityType type) noexcept {
    switch (type) {
        case PluginCapabilityType::kCORE:
            return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case PluginCapabilityType::kBUILD:
            return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case PluginCapabilityType::kRUNTIME:
            return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

PluginV3* PluginV3::clone() noexcept {
    return guarded(getPluginName(), static_cast<PluginV3*>(nullptr),
                   [&] { return new PluginV3(layer_); });
}

int32_t PluginV3::configurePlugin(const DynamicPluginTensorDesc* in, int32_t inputs,
                                  const DynamicPluginTensorDesc* out, int32_t outputs) noexcept {
    return guarded(getPluginName(), kFailure, [&] {
        check_outputs(outputs);
        const Shape y = to_shape(out[0].desc.dims);
        make_layer(layer_.op(), layer_.attributes(), shapes_of(in, inputs), &y);
        layer_.configure(format_or_throw(in[0].desc),
                         shapes_of(in, inputs, &DynamicPluginTensorDesc::min),
                         shapes_of(in, inputs, &DynamicPluginTensorDesc::max));
        return kSuccess;
    });
}

int32_t PluginV3::getOutputDataTypes(DataType* output_types, int32_t outputs,
                                     const DataType* input_types, int32_t inputs) const noexcept {
    return guarded(getPluginName(), kFailure, [&] {
        check_outputs(outputs);
        if (inputs != layer_.op().inputs())
            reject("the inputs", std::to_string(inputs), std::to_string(layer_.op().inputs()));
        output_types[0] = input_types[kX];
        return kSuccess;
    });
}

int32_t PluginV3::getOutputShapes(const DimsExprs* inputs, int32_t input_count, const DimsExprs*,
                                  int32_t, DimsExprs* outputs, int32_t output_count,
                                  IExprBuilder& builder) noexcept {
    return guarded(getPluginName(), kFailure, [&] {
        check_outputs(output_count);
        const TuckerConvParams layer =
            make_layer(layer_.op(), layer_.attributes(), shapes_of(inputs, input_count));
        outputs[0] = output_sizes(inputs[kX], layer_.attributes(), layer, builder);
        return kSuccess;
    });
}

bool PluginV3::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* in_out,
                                         int32_t inputs, int32_t outputs) noexcept {
    const auto run = [&] {
        check_outputs(outputs);
        return supports(layer_, position, inputs,
                        [=](int i) -> const PluginTensorDesc& { return in_out[i].desc; });
    };
    return guarded(getPluginName(), false, run, Severity::kWARNING);
}

std::size_t PluginV3::getWorkspaceSize(const DynamicPluginTensorDesc* in, int32_t inputs,
                                       const DynamicPluginTensorDesc*, int32_t) const noexcept {
    return guarded(getPluginName(), std::size_t{0}, [&] {
        return layer_.workspace(format_or_throw(in[0].desc),
                                shapes_of(in, inputs, &DynamicPluginTensorDesc::max));
    });
}

int32_t PluginV3::getNbTactics() noexcept { return static_cast<int32_t>(layer_.tactics().size()); }

int32_t PluginV3::getValidTactics(int32_t* tactics, int32_t count) noexcept {
    if (count != getNbTactics()) return kFailure;
    std::copy(layer_.tactics().begin(), layer_.tactics().end(), tactics);
    return kSuccess;
}

const char* PluginV3::getTimingCacheID() noexcept {
    return guarded(getPluginName(), static_cast<const char*>(nullptr), [&] {
        timing_cache_id_ = layer_.identity();
        return timing_cache_id_.c_str();
    });
}

const char* PluginV3::getMetadataString() noexcept {
    return guarded(getPluginName(), static_cast<const char*>(nullptr), [&] {
        metadata_ = layer_.describe();
        return metadata_.c_str();
    });
}

int32_t PluginV3::setTactic(int32_t tactic) noexcept {
    return guarded(getPluginName(), kFailure, [&] {
        layer_.set_tactic(tactic);
        return kSuccess;
    });
}

int32_t PluginV3::onShapeChange(const PluginTensorDesc* in, int32_t inputs,
                                const PluginTensorDesc* out, int32_t outputs) noexcept {
    return guarded(getPluginName(), kFailure, [&] {
        check_outputs(outputs);
        layer_.set_shapes(format_or_throw(in[0]), shapes_of(in, inputs), to_shape(out[0].dims));
        return kSuccess;
    });
}

int32_t PluginV3::enqueue(const PluginTensorDesc*, const PluginTensorDesc*,
                          const void* const* inputs, void* const* outputs, void* workspace,
                          cudaStream_t stream) noexcept {
    return guarded(getPluginName(), kFailure, [&] {
        layer_.launch(inputs, outputs[0], workspace, stream);
        return kSuccess;
    });
}

nvinfer1::IPluginV3* PluginV3::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
    return guarded(getPluginName(), static_cast<nvinfer1::IPluginV3*>(nullptr), [&] {
        auto attached = std::make_unique<PluginV3>(layer_);
        attached->layer_.reserve();
        return static_cast<nvinfer1::IPluginV3*>(attached.release());
    });
}

const PluginFieldCollection* PluginV3::getFieldsToSerialize() noexcept {
    return guarded(getPluginName(), static_cast<const PluginFieldCollection*>(nullptr), [&] {
        fields_ = from_fields(fields_of(layer_.attributes()));
        collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
        return static_cast<const PluginFieldCollection*>(&collection_);
    });
}

nvinfer1::IPluginV3* CreatorV3::createPlugin(const char*, const PluginFieldCollection* fields,
                                             TensorRTPhase phase) noexcept {
    return guarded(op_->name, static_cast<nvinfer1::IPluginV3*>(nullptr), [&] {
        const PluginFieldCollection given = fields ? *fields : PluginFieldCollection{};
        const Layer layer(*op_, read_attributes(to_fields(given), phase == TensorRTPhase::kBUILD
                                                                      ? Phase::kBuild
                                                                      : Phase::kRuntime));
        return static_cast<nvinfer1::IPluginV3*>(new PluginV3(layer));
    });
}

const PluginFieldCollection* CreatorV3::getFieldNames() noexcept {
    static const std::vector<nvinfer1::PluginField> fields = from_fields(node_fields());
    static const PluginFieldCollection collection{static_cast<int32_t>(fields.size()),
                                                  fields.data()};
    return &collection;
}

}  // namespace tdc::plugin
