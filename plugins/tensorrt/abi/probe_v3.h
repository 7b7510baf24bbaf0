// probe.cpp's part for IPluginV3.
#pragma once

void plugin_layouts() {
    OFFSET(DynamicPluginTensorDesc, opt);
    SIZE(InterfaceInfo);
    OFFSET(InterfaceInfo, kind);
    OFFSET(InterfaceInfo, major);
    OFFSET(InterfaceInfo, minor);
    VALUE(PluginFieldType::kBF16);
    VALUE(PluginFieldType::kINT64);
    VALUE(TensorRTPhase::kBUILD);
    VALUE(TensorRTPhase::kRUNTIME);
    VALUE(PluginCapabilityType::kCORE);
    VALUE(PluginCapabilityType::kBUILD);
    VALUE(PluginCapabilityType::kRUNTIME);
    VALUE(APILanguage::kCPP);
    VALUE(APILanguage::kPYTHON);
}

void registry_slots() {
    SLOT(apiv::VDimensionExpr, isSizeTensor);
    SLOT(apiv::VExprBuilder, declareSizeTensor);
    SLOT(ILoggerFinder, findLogger);
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

void plugins() {
    plugin_layouts();
    plugin_slots();
    registry_slots();
    names();
    print_info<IPluginV3>("IPluginV3");
    print_info<IPluginV3OneCore>("IPluginV3OneCore");
    print_info<IPluginV3OneBuild>("IPluginV3OneBuild");
    print_info<IPluginV3OneRuntime>("IPluginV3OneRuntime");
    print_info<IPluginCreatorV3One>("IPluginCreatorV3One");
}
