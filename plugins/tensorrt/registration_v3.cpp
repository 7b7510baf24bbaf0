// What the library for TensorRT 10 and 11 exports, for loadLibrary.
#include "tensorrt/registration.h"
#include "tensorrt/v3.h"

namespace {

using nvinfer1::IPluginCreatorInterface;

tdc::plugin::SelfRegistration<tdc::plugin::CreatorV3, IPluginCreatorInterface> registration;

}  // namespace

TDC_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
    using namespace tdc::plugin;
    if (is_compatible(host_of(__builtin_return_address(0)))) set_logger_finder(finder);
}

TDC_EXPORT IPluginCreatorInterface* const* getCreators(int32_t& count) {
    return registration.hand_over(__builtin_return_address(0), count);
}
