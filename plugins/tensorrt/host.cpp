#include "tensorrt/host.h"

#include <dlfcn.h>

#include <cstdio>
#include <initializer_list>

#define TDC_TEXT_OF(number) #number
#define TDC_TEXT(number) TDC_TEXT_OF(number)

namespace tdc::plugin {
namespace {

Host functions_of(void* library) {
    Host host{};
    host.registry = reinterpret_cast<decltype(host.registry)>(dlsym(library, "getPluginRegistry"));
    host.logger = reinterpret_cast<decltype(host.logger)>(dlsym(library, "getLogger"));
    host.version = reinterpret_cast<decltype(host.version)>(dlsym(library, "getInferLibVersion"));
    return host;
}

// Of a library that is loaded already.
Host functions_of_loaded(const char* name) {
    void* library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    if (!library) return {};
    const Host host = functions_of(library);
    dlclose(library);  // what was loaded stays
    return host;
}

}  // namespace

Host find_host() {
    Host host = functions_of(RTLD_DEFAULT);
    for (const char* name : {"libnvinfer.so." TDC_TEXT(NV_TENSORRT_MAJOR),
                             "libnvinfer_lean.so." TDC_TEXT(NV_TENSORRT_MAJOR)})
        if (!host.registry) host = functions_of_loaded(name);
    return host;
}

Host host_of(const void* address) {
    Dl_info library{};
    return dladdr(address, &library) ? functions_of_loaded(library.dli_fname) : Host{};
}

bool is_compatible(const Host& host) {
    if (!host.version) return true;
    const int version = host.version();  // 100500 is 10.5.0, 8503 is 8.5.3
    const int major = version < 10000 ? version / 1000 : version / 10000;
    if (major == NV_TENSORRT_MAJOR) return true;
    std::fprintf(stderr,
                 "tdc: libtdc_plugins_trt%d.so was loaded into TensorRT %d, and registers nothing "
                 "there: expected libtdc_plugins_trt%d.so\n",
                 NV_TENSORRT_MAJOR, major, major);
    return false;
}

}  // namespace tdc::plugin
