// The plugin library in TensorRT's own registry: registry_test PLUGIN STEP... TENSORRT. After every
// step the creators must be there, or gone. Nothing here makes a runtime, which needs a GPU.
#include <dlfcn.h>

#include <cstring>
#include <functional>
#include <map>
#include <vector>

#include "../../tests/check.h"
#include "exercise.h"
#include "v3_node.h"

namespace {

using namespace nvinfer1;

class Steps {
  public:
    Steps(IPluginRegistry& registry, const char* path) : registry_(registry), path_(path) {}

    void take(const std::string& step) {
        const std::map<std::string, std::function<void()>> steps = {
            {"load", [&] { load(true); }},
            // The name is taken: TensorRT says so, and what is there stays.
            {"load_again", [&] { load(false); }},
            {"load_other", [&] { load_other(); }},
            {"unload", [&] { unload(); }},
            {"open", [&] { open(); }},
            {"close", [&] { close(); }},
            {"preloaded", [&] { check(true); }},
            {"exercise", [&] { exercise(); }},
        };
        steps.at(step)();
    }

  private:
    void load(bool first) {
        void* handle = registry_.loadLibrary(path_);
        CHECK((handle != nullptr) == first);
        if (handle) handles_.push_back(handle);
        check(true);
    }
    void load_other() {
        CHECK_FAILS("registers nothing there: expected libtdc_plugins_trt", [&] {
            if (!registry_.loadLibrary(path_)) _exit(1);
        });
        registry_.loadLibrary(path_);
        check(false);
    }
    void unload() {
        registry_.deregisterLibrary(handles_.back());
        handles_.pop_back();
        check(false);
    }
    void open() {
        opened_.push_back(dlopen(path_, RTLD_NOW | RTLD_LOCAL));
        CHECK(opened_.back());
        check(true);
    }
    void close() {
        CHECK(dlclose(opened_.back()) == 0);
        opened_.pop_back();
        check(!handles_.empty());
    }
    void exercise() { tdc::test::exercise({creator("TuckerConv"), creator("TuckerConvAdd")}); }

    IPluginCreatorV3One* creator(const char* name) {
        return static_cast<IPluginCreatorV3One*>(registry_.getCreator(name, "1", ""));
    }

    // Both creators are in the registry once and make plugins, or are not there at all.
    void check(bool there) {
        int32_t count = 0;
        IPluginCreatorInterface* const* all = registry_.getAllCreators(&count);
        for (const char* name : {"TuckerConv", "TuckerConvAdd"}) {
            IPluginCreatorV3One* found = creator(name);
            int times = 0;
            for (int i = 0; i < count; ++i) times += all[i] == found;
            CHECK((found != nullptr) == there && times == there);
            if (!found) continue;
            CHECK(!std::strcmp(found->getPluginName(), name));
            const tdc::test::Plugin plugin(found->createPlugin(
                "node", tdc::test::NodeFields().collection(), TensorRTPhase::kBUILD));
            CHECK(plugin);
        }
    }

    IPluginRegistry& registry_;
    const char* path_;
    std::vector<void*> handles_, opened_;
};

}  // namespace

int main(int count, char** arguments) {
    void* tensorrt = dlopen(arguments[count - 1], RTLD_NOW | RTLD_LOCAL);
    CHECK(tensorrt);
    if (!tensorrt) return tdc::test::result();
    using GetRegistry = IPluginRegistry*();
    auto* get = reinterpret_cast<GetRegistry*>(dlsym(tensorrt, "getPluginRegistry"));
    CHECK(get);
    Steps steps(*get(), arguments[1]);
    for (int i = 2; i < count - 1; ++i) steps.take(arguments[i]);
    return tdc::test::result();
}
