// Prints what callers of TensorRT's plugin interface depend on: layouts, values, and the place of
// every virtual function. check.py compiles it against abi/ and against NVIDIA's headers.
#include <NvInferRuntime.h>

#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <typeinfo>

namespace {

using namespace nvinfer1;

void print(const char* what, long long value) { std::printf("%s %lld\n", what, value); }

// Itanium C++ ABI, 2.3: a pointer to a virtual member function is 1 + its offset in the table, and
// the adjustment of `this`.
template <class Function>
void print_slot(const char* what, Function function) {
    long long words[2];
    static_assert(sizeof function == sizeof words, "Itanium C++ ABI");
    std::memcpy(words, &function, sizeof words);
    print(what, (words[0] - 1) / 8 + 1000 * words[1]);
}

#define SIZE(type) print("sizeof " #type, sizeof(type))
#define OFFSET(type, member) print(#type "." #member, offsetof(type, member))
#define VALUE(value) print(#value, static_cast<long long>(value))
#define SLOT(type, function) print_slot(#type "::" #function, &type::function)
#define SLOT_OF(type, function, ...) \
    print_slot(#type "::" #function " " #__VA_ARGS__, static_cast<__VA_ARGS__>(&type::function))

void layouts() {
    SIZE(Dims);
    OFFSET(Dims, nbDims);
    OFFSET(Dims, d);
    SIZE(PluginTensorDesc);
    OFFSET(PluginTensorDesc, dims);
    OFFSET(PluginTensorDesc, type);
    OFFSET(PluginTensorDesc, format);
    OFFSET(PluginTensorDesc, scale);
    SIZE(DynamicPluginTensorDesc);
    OFFSET(DynamicPluginTensorDesc, desc);
    OFFSET(DynamicPluginTensorDesc, min);
    OFFSET(DynamicPluginTensorDesc, max);
    SIZE(PluginField);
    OFFSET(PluginField, name);
    OFFSET(PluginField, data);
    OFFSET(PluginField, type);
    OFFSET(PluginField, length);
    SIZE(PluginFieldCollection);
    OFFSET(PluginFieldCollection, nbFields);
    OFFSET(PluginFieldCollection, fields);
    SIZE(DimsExprs);
    OFFSET(DimsExprs, nbDims);
    OFFSET(DimsExprs, d);
    SIZE(IDimensionExpr);
    SIZE(IExprBuilder);
    struct Expression : IDimensionExpr {
        static void run() { print("IDimensionExpr.mImpl", offsetof(Expression, mImpl)); }
    };
    struct Builder : IExprBuilder {
        static void run() { print("IExprBuilder.mImpl", offsetof(Builder, mImpl)); }
    };
    Expression::run();
    Builder::run();
}

void values() {
    VALUE(Dims::MAX_DIMS);
    VALUE(DataType::kFLOAT);
    VALUE(DataType::kHALF);
    VALUE(DataType::kINT8);
    VALUE(DataType::kINT32);
    VALUE(DataType::kBOOL);
    VALUE(TensorFormat::kLINEAR);
    VALUE(TensorFormat::kCHW2);
    VALUE(TensorFormat::kHWC8);
    VALUE(TensorFormat::kCHW4);
    VALUE(TensorFormat::kHWC);
    VALUE(PluginFieldType::kFLOAT16);
    VALUE(PluginFieldType::kFLOAT32);
    VALUE(PluginFieldType::kFLOAT64);
    VALUE(PluginFieldType::kINT8);
    VALUE(PluginFieldType::kINT16);
    VALUE(PluginFieldType::kINT32);
    VALUE(PluginFieldType::kCHAR);
    VALUE(PluginFieldType::kDIMS);
    VALUE(PluginFieldType::kUNKNOWN);
    VALUE(DimensionOperation::kSUM);
    VALUE(DimensionOperation::kPROD);
    VALUE(DimensionOperation::kMAX);
    VALUE(DimensionOperation::kMIN);
    VALUE(DimensionOperation::kSUB);
    VALUE(DimensionOperation::kEQUAL);
    VALUE(DimensionOperation::kLESS);
    VALUE(DimensionOperation::kFLOOR_DIV);
    VALUE(DimensionOperation::kCEIL_DIV);
    VALUE(ILogger::Severity::kINTERNAL_ERROR);
    VALUE(ILogger::Severity::kERROR);
    VALUE(ILogger::Severity::kWARNING);
    VALUE(ILogger::Severity::kINFO);
    VALUE(ILogger::Severity::kVERBOSE);
}

void host_slots() {
    SLOT(apiv::VDimensionExpr, isConstant);
    SLOT(apiv::VDimensionExpr, getConstantValue);
    SLOT(apiv::VExprBuilder, constant);
    SLOT(apiv::VExprBuilder, operation);
    SLOT(ILogger, log);
    SLOT(IPluginRegistry, setErrorRecorder);
    SLOT(IPluginRegistry, getErrorRecorder);
#if NV_TENSORRT_MAJOR <= 10
    SLOT(IPluginRegistry, getPluginCreatorList);
    SLOT(IPluginRegistry, getPluginCreator);
    SLOT_OF(IPluginRegistry, registerCreator,
            bool (IPluginRegistry::*)(IPluginCreator&, const char*) noexcept);
    SLOT_OF(IPluginRegistry, deregisterCreator,
            bool (IPluginRegistry::*)(const IPluginCreator&) noexcept);
#endif
}

#if NV_TENSORRT_MAJOR == 8
#include "probe_v2.h"
#else
#include "probe_v3.h"
#endif

}  // namespace

int main() {
    layouts();
    values();
    host_slots();
    plugins();
}
