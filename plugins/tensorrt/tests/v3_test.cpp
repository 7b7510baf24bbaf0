// The plugin library without TensorRT: v3_test LIBRARY. Messages go to stderr then.
#include <dlfcn.h>

#include "../../tests/check.h"
#include "exercise.h"

int main(int, char** arguments) {
    using namespace nvinfer1;
    void* library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    CHECK(library);
    if (!library) return tdc::test::result();
    using GetCreators = IPluginCreatorInterface* const*(int32_t&);
    auto* get = reinterpret_cast<GetCreators*>(dlsym(library, "getCreators"));
    CHECK(get && dlsym(library, "setLoggerFinder"));
    int32_t count = 0;
    IPluginCreatorInterface* const* creators = get(count);
    CHECK(count == 2);
    tdc::test::exercise({static_cast<IPluginCreatorV3One*>(creators[0]),
                         static_cast<IPluginCreatorV3One*>(creators[1])});
    dlclose(library);
    return tdc::test::result();
}
