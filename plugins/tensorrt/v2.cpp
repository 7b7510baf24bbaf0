#include "tensorrt/v2.h"

#include <cstring>
#include <memory>

#include "tensorrt/convert.h"
#include "tensorrt/core/error.h"
#include "tensorrt/core/serial.h"
#include "tensorrt/log.h"

namespace tdc::plugin {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginTensorDesc;

namespace {

constexpr int32_t kSuccess = 0, kFailure = -1;

bool has_open_size(const std::vector<Shape>& shapes) {
    for (const Shape& shape : shapes)
        for (const int64_t size : shape)
            if (size == -1) return true;
    return false;
}

}  // namespace

void PluginV2::setPluginNamespace(const char* space) noexcept {
    guarded(getPluginType(), kFailure, [&] {
        namespace_ = space ? space : "";
        return kSuccess;
    });
}

PluginV2* PluginV2::clone() const noexcept {
    return guarded(getPluginType(), static_cast<PluginV2*>(nullptr), [&] {
        auto copy = std::make_unique<PluginV2>(layer_);
        copy->namespace_ = namespace_;
        copy->shapes_ = shapes_;
        copy->largest_ = largest_;
        return copy.release();
    });
}

DataType PluginV2::getOutputDataType(int32_t, const DataType* types, int32_t) const noexcept {
    return types[kX];
}

// There is no way to refuse but an output that is invalid.
DimsExprs PluginV2::getOutputDimensions(int32_t, const DimsExprs* inputs, int32_t input_count,
                                        nvinfer1::IExprBuilder& builder) noexcept {
    return guarded(getPluginType(), DimsExprs{-1, {}}, [&] {
        const TuckerConvParams layer =
            make_layer(layer_.op(), layer_.attributes(), shapes_of(inputs, input_count));
        return output_sizes(inputs[kX], layer_.attributes(), layer, builder);
    });
}

bool PluginV2::supportsFormatCombination(int32_t position, const PluginTensorDesc* in_out,
                                         int32_t inputs, int32_t) noexcept {
    const auto run = [&] {
        return supports(layer_, position, inputs,
                        [=](int i) -> const PluginTensorDesc& { return in_out[i]; });
    };
    return guarded(getPluginType(), false, run, Severity::kWARNING);
}

// Called with a range when the engine is built, and with fixed shapes before it runs.
void PluginV2::configurePlugin(const DynamicPluginTensorDesc* in, int32_t inputs,
                               const DynamicPluginTensorDesc* out, int32_t) noexcept {
    guarded(getPluginType(), kFailure, [&] {
        const Shape y = to_shape(out[0].desc.dims);
        const std::vector<Shape> shapes = shapes_of(in, inputs);
        make_layer(layer_.op(), layer_.attributes(), shapes, &y);
        shapes_.clear();
        largest_ = shapes_of(in, inputs, &DynamicPluginTensorDesc::max);
        layer_.configure(format_or_throw(in[0].desc),
                         shapes_of(in, inputs, &DynamicPluginTensorDesc::min), largest_);
        if (!has_open_size(shapes)) layer_.reserve();
        return kSuccess;
    });
}

std::size_t PluginV2::getWorkspaceSize(const PluginTensorDesc* in, int32_t inputs,
                                       const PluginTensorDesc*, int32_t) const noexcept {
    return guarded(getPluginType(), std::size_t{0}, [&] {
        const std::vector<Shape> shapes = shapes_of(in, inputs);
        return layer_.workspace(format_or_throw(in[0]), has_open_size(shapes) ? largest_ : shapes);
    });
}

int32_t PluginV2::initialize() noexcept { return reserve() ? kSuccess : kFailure; }

void PluginV2::attachToContext(cudnnContext*, cublasContext*, nvinfer1::IGpuAllocator*) noexcept {
    reserve();
}

bool PluginV2::reserve() noexcept {
    return guarded(getPluginType(), false, [&] {
        layer_.reserve();
        return true;
    });
}

int32_t PluginV2::enqueue(const PluginTensorDesc* in, const PluginTensorDesc* out,
                          const void* const* inputs, void* const* outputs, void* workspace,
                          cudaStream_t stream) noexcept {
    return guarded(getPluginType(), kFailure, [&] {
        std::vector<Shape> shapes = shapes_of(in, layer_.op().inputs());
        shapes.push_back(to_shape(out[0].dims));
        if (shapes != shapes_) {
            const Shape y = shapes.back();
            layer_.set_shapes(format_or_throw(in[0]), {shapes.begin(), shapes.end() - 1}, y);
            shapes_ = shapes;
        }
        layer_.launch(inputs, outputs[0], workspace, stream);
        return kSuccess;
    });
}

std::size_t PluginV2::getSerializationSize() const noexcept {
    return guarded(getPluginType(), std::size_t{0},
                   [&] { return 4 * plugin::serialize(layer_.attributes()).size(); });
}

void PluginV2::serialize(void* buffer) const noexcept {
    guarded(getPluginType(), kFailure, [&] {
        const std::vector<int32_t> words = plugin::serialize(layer_.attributes());
        std::memcpy(buffer, words.data(), 4 * words.size());
        return kSuccess;
    });
}

const PluginFieldCollection* CreatorV2::getFieldNames() noexcept {
    static const std::vector<nvinfer1::PluginField> fields = from_fields(node_fields());
    static const PluginFieldCollection collection{static_cast<int32_t>(fields.size()),
                                                  fields.data()};
    return &collection;
}

PluginV2* CreatorV2::createPlugin(const char*, const PluginFieldCollection* fields) noexcept {
    return guarded(op_->name, static_cast<PluginV2*>(nullptr), [&] {
        const PluginFieldCollection given = fields ? *fields : PluginFieldCollection{};
        return new PluginV2(Layer(*op_, read_attributes(to_fields(given), Phase::kBuild)));
    });
}

PluginV2* CreatorV2::deserializePlugin(const char*, const void* data, std::size_t length) noexcept {
    return guarded(op_->name, static_cast<PluginV2*>(nullptr),
                   [&] { return new PluginV2(Layer(*op_, deserialize(data, length))); });
}

}  // namespace tdc::plugin
