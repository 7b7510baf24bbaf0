// The plain values of TensorRT's plugin interface.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tdc/cuda_api.h"

namespace nvinfer1 {

using AsciiChar = char;

enum class DataType : int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4 };

enum class TensorFormat : int32_t { kLINEAR = 0, kCHW2 = 1, kHWC8 = 2, kCHW4 = 3, kHWC = 8 };

#if TDC_TENSORRT_MAJOR == 8
using SizeType = int32_t;
#else
using SizeType = int64_t;
#endif

class Dims {
  public:
    static constexpr int32_t MAX_DIMS = 8;
    int32_t nbDims;
    SizeType d[MAX_DIMS];  // -1: dynamic
};

struct PluginTensorDesc {
    Dims dims;
    DataType type;
    TensorFormat format;
    float scale;
};

struct DynamicPluginTensorDesc {
    PluginTensorDesc desc;
    Dims min;
    Dims max;
#if TDC_TENSORRT_MAJOR != 8
    Dims opt;
#endif
};

enum class PluginFieldType : int32_t {
    kFLOAT16 = 0,
    kFLOAT32 = 1,
    kFLOAT64 = 2,
    kINT8 = 3,
    kINT16 = 4,
    kINT32 = 5,
    kCHAR = 6,
    kDIMS = 7,
    kUNKNOWN = 8,
    kBF16 = 9,
    kINT64 = 10,
};

class PluginField {
  public:
    const AsciiChar* name;
    const void* data;
    PluginFieldType type;
    int32_t length;  // in elements of the type

    PluginField(const AsciiChar* name = nullptr, const void* data = nullptr,
                PluginFieldType type = PluginFieldType::kUNKNOWN, int32_t length = 0) noexcept
        : name(name), data(data), type(type), length(length) {}
};

struct PluginFieldCollection {
    int32_t nbFields;
    const PluginField* fields;
};

enum class TensorRTPhase : int32_t { kBUILD = 0, kRUNTIME = 1 };
enum class PluginCapabilityType : int32_t { kCORE = 0, kBUILD = 1, kRUNTIME = 2 };

enum class APILanguage : int32_t { kCPP = 0, kPYTHON = 1 };

class InterfaceInfo {
  public:
    const char* kind;
    int32_t major;
    int32_t minor;
};

class IVersionedInterface {
  public:
    virtual APILanguage getAPILanguage() const noexcept { return APILanguage::kCPP; }
    virtual InterfaceInfo getInterfaceInfo() const noexcept = 0;
    virtual ~IVersionedInterface() noexcept = default;
};

}  // namespace nvinfer1
