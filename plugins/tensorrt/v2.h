// The operators as TensorRT's IPluginV2DynamicExt (8.5 and 8.6) and their creator. That interface
// knows no tactics: the first one of the node's that can run does.
#pragma once

#include <NvInferRuntime.h>

#include <string>
#include <vector>

#include "tensorrt/core/layer.h"

namespace tdc::plugin {

class PluginV2 final : public nvinfer1::IPluginV2DynamicExt {
  public:
    explicit PluginV2(const Layer& layer) : layer_(layer) {}

    const char* getPluginType() const noexcept override { return layer_.op().name; }
    const char* getPluginVersion() const noexcept override { return "1"; }
    void setPluginNamespace(const char* space) noexcept override;
    const char* getPluginNamespace() const noexcept override { return namespace_.c_str(); }
    PluginV2* clone() const noexcept override;
    void destroy() noexcept override { delete this; }

    int32_t getNbOutputs() const noexcept override { return 1; }
    nvinfer1::DataType getOutputDataType(int32_t index, const nvinfer1::DataType* types,
                                         int32_t inputs) const noexcept override;
    nvinfer1::DimsExprs getOutputDimensions(int32_t index, const nvinfer1::DimsExprs* inputs,
                                            int32_t input_count,
                                            nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(int32_t position, const nvinfer1::PluginTensorDesc* in_out,
                                   int32_t inputs, int32_t outputs) noexcept override;
    void configurePlugin(const nvinfer1::DynamicPluginTensorDesc* in, int32_t inputs,
                         const nvinfer1::DynamicPluginTensorDesc* out,
                         int32_t outputs) noexcept override;
    std::size_t getWorkspaceSize(const nvinfer1::PluginTensorDesc* in, int32_t inputs,
                                 const nvinfer1::PluginTensorDesc* out,
                                 int32_t outputs) const noexcept override;

    int32_t initialize() noexcept override;
    void terminate() noexcept override {}
    void attachToContext(cudnnContext*, cublasContext*, nvinfer1::IGpuAllocator*) noexcept override;
    int32_t enqueue(const nvinfer1::PluginTensorDesc* in, const nvinfer1::PluginTensorDesc* out,
                    const void* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override;

    std::size_t getSerializationSize() const noexcept override;
    void serialize(void* buffer) const noexcept override;

  private:
    // Allocates the counters; false where that fails.
    bool reserve() noexcept;

    Layer layer_;
    std::string namespace_;
    std::vector<Shape> shapes_;   // that layer_ was told last, with Y's
    std::vector<Shape> largest_;  // of the inputs, since configurePlugin
};

class CreatorV2 final : public nvinfer1::IPluginCreator {
  public:
    explicit CreatorV2(const Operator& op) : op_(&op) {}

    const char* getPluginName() const noexcept override { return op_->name; }
    const char* getPluginVersion() const noexcept override { return "1"; }
    // Registered under "", for which TensorRT looks with the node's plugin_namespace.
    void setPluginNamespace(const char*) noexcept override {}
    const char* getPluginNamespace() const noexcept override { return ""; }
    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override;
    PluginV2* createPlugin(const char* name,
                           const nvinfer1::PluginFieldCollection* fields) noexcept override;
    PluginV2* deserializePlugin(const char* name, const void* data,
                                std::size_t length) noexcept override;

  private:
    const Operator* op_;
};

}  // namespace tdc::plugin
