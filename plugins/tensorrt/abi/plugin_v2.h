// IPluginV2DynamicExt and its creator, of TensorRT 8.5 and 8.6. Functions for networks without
// dynamic shapes are final here, as in TensorRT, and do nothing.
#pragma once

#include "expressions.h"
#include "types.h"

struct cublasContext;
struct cudnnContext;

namespace nvinfer1 {

class IGpuAllocator;
using PluginFormat = TensorFormat;

class IPluginV2 {
  public:
    virtual int32_t getTensorRTVersion() const noexcept = 0;
    virtual const AsciiChar* getPluginType() const noexcept = 0;
    virtual const AsciiChar* getPluginVersion() const noexcept = 0;
    virtual int32_t getNbOutputs() const noexcept = 0;
    virtual Dims getOutputDimensions(int32_t, const Dims*, int32_t) noexcept = 0;
    virtual bool supportsFormat(DataType, PluginFormat) const noexcept = 0;
    virtual void configureWithFormat(const Dims*, int32_t, const Dims*, int32_t, DataType,
                                     PluginFormat, int32_t) noexcept = 0;
    virtual int32_t initialize() noexcept = 0;
    virtual void terminate() noexcept = 0;
    virtual std::size_t getWorkspaceSize(int32_t) const noexcept = 0;
    virtual int32_t enqueue(int32_t, const void* const*, void* const*, void*,
                            cudaStream_t) noexcept = 0;
    virtual std::size_t getSerializationSize() const noexcept = 0;
    virtual void serialize(void* buffer) const noexcept = 0;
    virtual void destroy() noexcept = 0;
    virtual IPluginV2* clone() const noexcept = 0;
    virtual void setPluginNamespace(const AsciiChar* space) noexcept = 0;
    virtual const AsciiChar* getPluginNamespace() const noexcept = 0;
    virtual ~IPluginV2() noexcept = default;
};

class IPluginV2Ext : public IPluginV2 {
  public:
    virtual DataType getOutputDataType(int32_t index, const DataType* inputTypes,
                                       int32_t inputs) const noexcept = 0;
    virtual bool isOutputBroadcastAcrossBatch(int32_t, const bool*, int32_t) const noexcept = 0;
    virtual bool canBroadcastInputAcrossBatch(int32_t) const noexcept = 0;
    virtual void configurePlugin(const Dims*, int32_t, const Dims*, int32_t, const DataType*,
                                 const DataType*, const bool*, const bool*, PluginFormat,
                                 int32_t) noexcept = 0;
    virtual void attachToContext(cudnnContext*, cublasContext*, IGpuAllocator*) noexcept {}
    virtual void detachFromContext() noexcept {}
    IPluginV2Ext* clone() const noexcept override = 0;

  protected:
    void configureWithFormat(const Dims*, int32_t, const Dims*, int32_t, DataType, PluginFormat,
                             int32_t) noexcept override {}
};

class IPluginV2DynamicExt : public IPluginV2Ext {
  public:
    IPluginV2DynamicExt* clone() const noexcept override = 0;
    virtual DimsExprs getOutputDimensions(int32_t index, const DimsExprs* inputs,
                                          int32_t inputCount, IExprBuilder& builder) noexcept = 0;
    virtual bool supportsFormatCombination(int32_t position, const PluginTensorDesc* inOut,
                                           int32_t inputs, int32_t outputs) noexcept = 0;
    virtual void configurePlugin(const DynamicPluginTensorDesc* in, int32_t inputs,
                                 const DynamicPluginTensorDesc* out, int32_t outputs) noexcept = 0;
    virtual std::size_t getWorkspaceSize(const PluginTensorDesc* in, int32_t inputs,
                                         const PluginTensorDesc* out,
                                         int32_t outputs) const noexcept = 0;
    virtual int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc* out,
                            const void* const* inputs, void* const* outputs, void* workspace,
                            cudaStream_t stream) noexcept = 0;

  protected:
    // The kind of plugin, and the version of TensorRT that it was built for.
    int32_t getTensorRTVersion() const noexcept override {
        constexpr int32_t kDynamicExt = 3;
        return kDynamicExt << 24 |
               (NV_TENSORRT_MAJOR * 1000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH);
    }

  private:
    void configurePlugin(const Dims*, int32_t, const Dims*, int32_t, const DataType*,
                         const DataType*, const bool*, const bool*, PluginFormat,
                         int32_t) noexcept final {}
    bool supportsFormat(DataType, PluginFormat) const noexcept final { return false; }
    Dims getOutputDimensions(int32_t, const Dims*, int32_t) noexcept final { return {-1, {}}; }
    bool isOutputBroadcastAcrossBatch(int32_t, const bool*, int32_t) const noexcept final {
        return false;
    }
    bool canBroadcastInputAcrossBatch(int32_t) const noexcept final { return true; }
    std::size_t getWorkspaceSize(int32_t) const noexcept final { return 0; }
    int32_t enqueue(int32_t, const void* const*, void* const*, void*, cudaStream_t) noexcept final {
        return 1;
    }
};

class IPluginCreator {
  public:
    virtual int32_t getTensorRTVersion() const noexcept {
        return NV_TENSORRT_MAJOR * 1000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;
    }
    virtual const AsciiChar* getPluginName() const noexcept = 0;
    virtual const AsciiChar* getPluginVersion() const noexcept = 0;
    virtual const PluginFieldCollection* getFieldNames() noexcept = 0;
    virtual IPluginV2* createPlugin(const AsciiChar* name,
                                    const PluginFieldCollection* fields) noexcept = 0;
    virtual IPluginV2* deserializePlugin(const AsciiChar* name, const void* data,
                                         std::size_t length) noexcept = 0;
    virtual void setPluginNamespace(const AsciiChar* space) noexcept = 0;
    virtual const AsciiChar* getPluginNamespace() const noexcept = 0;
    virtual ~IPluginCreator() = default;
};

}  // namespace nvinfer1
