// How TensorRT learns of the creators. Its loadLibrary calls setLoggerFinder and getCreators. A
// mere dlopen or LD_PRELOAD calls neither: so the library also registers itself when it is loaded.
#include <NvInferRuntime.h>

#include <array>
#include <new>

#include "tensorrt/host.h"
#include "tensorrt/log.h"
#include "tensorrt/v3.h"

#define TDC_EXPORT extern "C" __attribute__((visibility("default")))

namespace tdc::plugin {
namespace {

using nvinfer1::IPluginCreatorInterface;

struct Creators {
    CreatorV3 tucker_conv{kTuckerConv}, tucker_conv_add{kTuckerConvAdd};
    std::array<IPluginCreatorInterface*, 2> all{&tucker_conv, &tucker_conv_add};
};

// Never destroyed: when the process ends, a registry may still look at them.
Creators& creators() {
    alignas(Creators) static unsigned char memory[sizeof(Creators)];
    static Creators* const made = new (memory) Creators;
    return *made;
}

// Registers the creators while it lives. As a static object that asks for the registry first, it
// ends before the registry does.
class SelfRegistration {
  public:
    SelfRegistration() {
        const Host host = find_host();
        if (!host.registry || !is_compatible(host)) return;
        set_logger_function(host.logger);
        registry_ = host.registry();
        for (IPluginCreatorInterface* creator : creators().all)
            registry_->registerCreator(*creator, "");
    }
    ~SelfRegistration() { undo(); }

    void undo() {
        if (!registry_) return;
        for (IPluginCreatorInterface* creator : creators().all)
            registry_->deregisterCreator(*creator);
        registry_ = nullptr;
    }

  private:
    nvinfer1::IPluginRegistry* registry_ = nullptr;
};

SelfRegistration self_registration;

}  // namespace
}  // namespace tdc::plugin

TDC_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
    using namespace tdc::plugin;
    if (is_compatible(host_of(__builtin_return_address(0)))) set_logger_finder(finder);
}

// loadLibrary registers what this returns, and removes it with the library. It refuses names that
// are there already, so the library's own registration gives way.
TDC_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    using namespace tdc::plugin;
    count = 0;
    if (!is_compatible(host_of(__builtin_return_address(0)))) return nullptr;
    self_registration.undo();
    count = static_cast<int32_t>(creators().all.size());
    return creators().all.data();
}
