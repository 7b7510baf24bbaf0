// probe.cpp's part for IPluginV2DynamicExt.
#pragma once

void plugin_slots() {
    SLOT(IPluginV2, getTensorRTVersion);
    SLOT(IPluginV2, getPluginType);
    SLOT(IPluginV2, getPluginVersion);
    SLOT(IPluginV2, getNbOutputs);
    SLOT(IPluginV2, getOutputDimensions);
    SLOT(IPluginV2, supportsFormat);
    SLOT(IPluginV2, configureWithFormat);
    SLOT(IPluginV2, initialize);
    SLOT(IPluginV2, terminate);
    SLOT(IPluginV2, getWorkspaceSize);
    SLOT(IPluginV2, enqueue);
    SLOT(IPluginV2, getSerializationSize);
    SLOT(IPluginV2, serialize);
    SLOT(IPluginV2, destroy);
    SLOT(IPluginV2, clone);
    SLOT(IPluginV2, setPluginNamespace);
    SLOT(IPluginV2, getPluginNamespace);
    SLOT(IPluginV2Ext, getOutputDataType);
    SLOT(IPluginV2Ext, isOutputBroadcastAcrossBatch);
    SLOT(IPluginV2Ext, canBroadcastInputAcrossBatch);
    SLOT(IPluginV2Ext, configurePlugin);
    SLOT(IPluginV2Ext, attachToContext);
    SLOT(IPluginV2Ext, detachFromContext);
    SLOT(IPluginV2DynamicExt, supportsFormatCombination);
    SLOT_OF(IPluginV2DynamicExt, getOutputDimensions,
            DimsExprs (IPluginV2DynamicExt::*)(int32_t, const DimsExprs*, int32_t,
                                               IExprBuilder&) noexcept);
    SLOT_OF(IPluginV2DynamicExt, configurePlugin,
            void (IPluginV2DynamicExt::*)(const DynamicPluginTensorDesc*, int32_t,
                                          const DynamicPluginTensorDesc*, int32_t) noexcept);
    SLOT_OF(IPluginV2DynamicExt, getWorkspaceSize,
            std::size_t (IPluginV2DynamicExt::*)(const PluginTensorDesc*, int32_t,
                                                 const PluginTensorDesc*, int32_t) const noexcept);
    SLOT_OF(IPluginV2DynamicExt, enqueue,
            int32_t (IPluginV2DynamicExt::*)(const PluginTensorDesc*, const PluginTensorDesc*,
                                             const void* const*, void* const*, void*,
                                             cudaStream_t) noexcept);
    SLOT(IPluginCreator, getTensorRTVersion);
    SLOT(IPluginCreator, getPluginName);
    SLOT(IPluginCreator, getPluginVersion);
    SLOT(IPluginCreator, getFieldNames);
    SLOT(IPluginCreator, createPlugin);
    SLOT(IPluginCreator, deserializePlugin);
    SLOT(IPluginCreator, setPluginNamespace);
    SLOT(IPluginCreator, getPluginNamespace);
}

// The names that typeid, and the checks of UndefinedBehaviorSanitizer, go by.
void names() {
    for (const std::type_info* type :
         {&typeid(IPluginV2), &typeid(IPluginV2Ext), &typeid(IPluginV2DynamicExt),
          &typeid(IPluginCreator), &typeid(IPluginRegistry), &typeid(IDimensionExpr),
          &typeid(IExprBuilder), &typeid(apiv::VDimensionExpr), &typeid(apiv::VExprBuilder),
          &typeid(ILogger)})
        std::printf("type %s\n", type->name());
}

void plugins() {
    plugin_slots();
    names();
}
