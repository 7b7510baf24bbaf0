// What the library for TensorRT 8 exports. 8.5 loads no libraries; 8.6 asks for these.
#include "tensorrt/registration.h"
#include "tensorrt/v2.h"

namespace {

using nvinfer1::IPluginCreator;

tdc::plugin::SelfRegistration<tdc::plugin::CreatorV2, IPluginCreator> registration;

}  // namespace

// 8.5's headers do not know ILoggerFinder, and TensorRT's getLogger function serves as well.
TDC_EXPORT void setLoggerFinder(void*) {}

TDC_EXPORT IPluginCreator* const* getPluginCreators(int32_t& count) {
    return registration.hand_over(__builtin_return_address(0), count);
}
