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
    OFFSET(DynamicPluginTensorDesc, opt);
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
    SIZE(InterfaceInfo);
    OFFSET(InterfaceInfo, kind);
    OFFSET(InterfaceInfo, major);
    OFFSET(InterfaceInfo, minor);
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
    VALUE(PluginFieldType::kBF16);
    VALUE(PluginFieldType::kINT64);
    VALUE(TensorRTPhase::kBUILD);
    VALUE(TensorRTPhase::kRUNTIME);
    VALUE(PluginCapabilityType::kCORE);
    VALUE(PluginCapabilityType::kBUILD);
    VALUE(PluginCapabilityType::kRUNTIME);
    VALUE(APILanguage::kCPP);
    VALUE(APILanguage::kPYTHON);
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

void plugin_slots() {
    SLOT(IVersionedInterface, getAPILanguage);
    SLOT(IVersionedInterface, getInterfaceInfo);
    SLOT(IPluginV3, getCapabilityInterface);
    SLOT(IPluginV3, clone);
    SLOT(IPluginV3OneCore, getPluginName);
    SLOT(IPluginV3OneCore, getPluginVersion);
    SLOT(IPluginV3OneCore, getPluginNamespace);
    SLOT(IPluginV3OneBuild, configurePlugin);
    SLOT(IPluginV3OneBuild, getOutputDataTypes);
    SLOT(IPluginV3OneBuild, getOutputShapes);
    SLOT(IPluginV3OneBuild, supportsFormatCombination);
    SLOT(IPluginV3OneBuild, getNbOutputs);
    SLOT(IPluginV3OneBuild, getWorkspaceSize);
    SLOT(IPluginV3OneBuild, getValidTactics);
    SLOT(IPluginV3OneBuild, getNbTactics);
    SLOT(IPluginV3OneBuild, getTimingCacheID);
    SLOT(IPluginV3OneBuild, getFormatCombinationLimit);
    SLOT(IPluginV3OneBuild, getMetadataString);
    SLOT(IPluginV3OneRuntime, setTactic);
    SLOT(IPluginV3OneRuntime, onShapeChange);
    SLOT(IPluginV3OneRuntime, enqueue);
    SLOT(IPluginV3OneRuntime, attachToContext);
    SLOT(IPluginV3OneRuntime, getFieldsToSerialize);
    SLOT(IPluginCreatorV3One, createPlugin);
    SLOT(IPluginCreatorV3One, getFieldNames);
    SLOT(IPluginCreatorV3One, getPluginName);
    SLOT(IPluginCreatorV3One, getPluginVersion);
    SLOT(IPluginCreatorV3One, getPluginNamespace);
    SLOT(IPluginResourceContext, getGpuAllocator);
    SLOT(IPluginResourceContext, getErrorRecorder);
}

void host_slots() {
    SLOT(apiv::VDimensionExpr, isConstant);
    SLOT(apiv::VDimensionExpr, getConstantValue);
    SLOT(apiv::VDimensionExpr, isSizeTensor);
    SLOT(apiv::VExprBuilder, constant);
    SLOT(apiv::VExprBuilder, operation);
    SLOT(apiv::VExprBuilder, declareSizeTensor);
    SLOT(ILogger, log);
    SLOT(ILoggerFinder, findLogger);
    SLOT(IPluginRegistry, setErrorRecorder);
    SLOT(IPluginRegistry, getErrorRecorder);
    SLOT(IPluginRegistry, isParentSearchEnabled);
    SLOT(IPluginRegistry, setParentSearchEnabled);
    SLOT(IPluginRegistry, loadLibrary);
    SLOT(IPluginRegistry, deregisterLibrary);
    SLOT(IPluginRegistry, getAllCreators);
    SLOT(IPluginRegistry, getCreator);
    SLOT_OF(IPluginRegistry, registerCreator,
            bool (IPluginRegistry::*)(IPluginCreatorInterface&, const char*) noexcept);
    SLOT_OF(IPluginRegistry, deregisterCreator,
            bool (IPluginRegistry::*)(const IPluginCreatorInterface&) noexcept);
#if NV_TENSORRT_MAJOR == 10
    SLOT(IPluginRegistry, getPluginCreatorList);
    SLOT(IPluginRegistry, getPluginCreator);
    SLOT_OF(IPluginRegistry, registerCreator,
            bool (IPluginRegistry::*)(IPluginCreator&, const char*) noexcept);
    SLOT_OF(IPluginRegistry, deregisterCreator,
            bool (IPluginRegistry::*)(const IPluginCreator&) noexcept);
#endif
}

// The names that typeid, and the checks of UndefinedBehaviorSanitizer, go by.
void names() {
    for (const std::type_info* type :
         {&typeid(IVersionedInterface), &typeid(IPluginCapability), &typeid(IPluginV3),
          &typeid(IPluginV3OneCore), &typeid(IPluginV3OneBuild), &typeid(IPluginV3OneRuntime),
          &typeid(IPluginCreatorInterface), &typeid(IPluginCreatorV3One), &typeid(IPluginRegistry),
          &typeid(IPluginResourceContext), &typeid(IDimensionExpr), &typeid(IExprBuilder),
          &typeid(apiv::VDimensionExpr), &typeid(apiv::VExprBuilder), &typeid(ILogger),
          &typeid(ILoggerFinder)})
        std::printf("type %s\n", type->name());
}

// What the classes say of themselves, as each that derives from them does.
template <class Interface>
void print_info(const char* what) {
    alignas(void*) unsigned char memory[sizeof(Interface)] = {};
    const InterfaceInfo info = reinterpret_cast<Interface*>(memory)->Interface::getInterfaceInfo();
    std::printf("%s %s %d.%d\n", what, info.kind, info.major, info.minor);
}

}  // namespace

int main() {
    layouts();
    values();
    plugin_slots();
    host_slots();
    names();
    print_info<IPluginV3>("IPluginV3");
    print_info<IPluginV3OneCore>("IPluginV3OneCore");
    print_info<IPluginV3OneBuild>("IPluginV3OneBuild");
    print_info<IPluginV3OneRuntime>("IPluginV3OneRuntime");
    print_info<IPluginCreatorV3One>("IPluginCreatorV3One");
}
