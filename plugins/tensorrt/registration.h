// The creators of both operators, and the library's registration of its own, which a mere dlopen or
// LD_PRELOAD needs: neither calls the functions that TensorRT's loadLibrary calls.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <new>

#include "tensorrt/core/shapes.h"
#include "tensorrt/host.h"
#include "tensorrt/log.h"

#define TDC_EXPORT extern "C" __attribute__((visibility("default")))

namespace tdc::plugin {

template <class Creator, class Interface>
struct Creators {
    Creator tucker_conv{kTuckerConv}, tucker_conv_add{kTuckerConvAdd};
    std::array<Interface*, 2> all{&tucker_conv, &tucker_conv_add};

    // Never destroyed: when the process ends, a registry may still look at them.
    static Creators& get() {
        alignas(Creators) static unsigned char memory[sizeof(Creators)];
        static Creators* const made = new (memory) Creators;
        return *made;
    }
};

// Registers the creators while it lives. As a static object that asks for the registry first, it
// ends before the registry does.
template <class Creator, class Interface>
class SelfRegistration {
  public:
    SelfRegistration() {
        const Host host = find_host();
        if (!host.registry || !is_compatible(host)) return;
        set_logger_function(host.logger);
        registry_ = host.registry();
        for (Interface* creator : Creators<Creator, Interface>::get().all)
            registry_->registerCreator(*creator, "");
    }
    ~SelfRegistration() { undo(); }
    SelfRegistration(const SelfRegistration&) = delete;
    SelfRegistration& operator=(const SelfRegistration&) = delete;

    // The creators, for loadLibrary to register and to remove with the library. It refuses names
    // that are there already, so this registration gives way. None if `caller`, an address in the
    // TensorRT that asks, is of another major.
    Interface* const* hand_over(const void* caller, int32_t& count) {
        count = 0;
        if (!is_compatible(host_of(caller))) return nullptr;
        undo();
        auto& all = Creators<Creator, Interface>::get().all;
        count = static_cast<int32_t>(all.size());
        return all.data();
    }

  private:
    void undo() {
        if (!registry_) return;
        for (Interface* creator : Creators<Creator, Interface>::get().all)
            registry_->deregisterCreator(*creator);
        registry_ = nullptr;
    }

    nvinfer1::IPluginRegistry* registry_ = nullptr;
};

}  // namespace tdc::plugin
