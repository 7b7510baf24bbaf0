// The plugin library for TensorRT 8: v2_test PLUGIN [TENSORRT], by itself or in the registry of
// that libnvinfer. Nothing here makes a builder or a runtime, which need a GPU.
#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "../../tests/check.h"
#include "node.h"

namespace {

using namespace nvinfer1;
using namespace tdc::test;

struct Destroy {
    void operator()(IPluginV2* plugin) const { plugin->destroy(); }
};
using Owner = std::unique_ptr<IPluginV2, Destroy>;

IPluginV2DynamicExt& of(const Owner& plugin) { return static_cast<IPluginV2DynamicExt&>(*plugin); }

struct Tensors {
    std::vector<PluginTensorDesc> all;
    int inputs;

    Tensors(const LayerCase& problem, Format format)
        : all(describe_tensors(problem, format)), inputs(problem.op().inputs()) {}
    const PluginTensorDesc* out() const { return all.data() + inputs; }
};

// As the builder asks for a range of sizes.
bool configure(IPluginV2DynamicExt& plugin, const LayerCase& small, const LayerCase& large,
               Format format) {
    const Tensors low(small, format), high(large, format);
    std::vector<DynamicPluginTensorDesc> tensors;
    for (std::size_t i = 0; i < low.all.size(); ++i) {
        tensors.push_back({low.all[i], low.all[i].dims, high.all[i].dims});
        for (const int axis : {0, 2, 3})
            if (has_x_format(static_cast<int>(i))) tensors[i].desc.dims.d[axis] = -1;
    }
    for (int i = 0; i <= low.inputs; ++i) {
        std::vector<PluginTensorDesc> shown(low.all.size(), {{-1, {}}, DataType::kINT8, {}, 0});
        for (int j = 0; j <= i; ++j)
            shown[static_cast<std::size_t>(j)] = tensors[static_cast<std::size_t>(j)].desc;
        if (!plugin.supportsFormatCombination(i, shown.data(), low.inputs, 1)) return false;
    }
    plugin.configurePlugin(tensors.data(), low.inputs, tensors.data() + low.inputs, 1);
    return true;
}

bool run(IPluginV2DynamicExt& plugin, const LayerCase& problem, const LayerCase& large,
         Format format, int tactic) {
    const Tensors tensors(problem, format), largest(large, format);
    const std::size_t workspace =
        plugin.getWorkspaceSize(largest.all.data(), largest.inputs, largest.out(), 1);
    CHECK(workspace >= tdc::workspace_bytes(tactic, large.params()));
    return problem.is_right(
        tactic, workspace, [&](const void* const* inputs, void* y, void* scratch) {
            return !plugin.enqueue(tensors.all.data(), tensors.out(), inputs, &y, scratch, nullptr);
        });
}

// Built, timed, serialised, loaded, cloned for a context, run at both ends of the range.
void check_format(IPluginCreator& creator, const LayerCase& small, const LayerCase& large,
                  Format format, const std::vector<int>& given) {
    const std::vector<int> valid = small.valid_tactics(format, given);
    const Owner made(creator.createPlugin("node", NodeFields(given).collection()));
    CHECK(made != nullptr);
    if (!made) return;
    CHECK(configure(of(made), small, large, format) == !valid.empty());
    if (valid.empty()) return;
    CHECK(made->initialize() == 0);
    CHECK(run(of(made), large, large, format, valid[0]));

    // Exactly as long as it says: AddressSanitizer sees what lies beyond.
    std::vector<unsigned char> data(made->getSerializationSize());
    made->serialize(data.data());
    const Owner loaded(creator.deserializePlugin("node", data.data(), data.size()));
    CHECK(loaded != nullptr);
    if (!loaded) return;
    std::vector<unsigned char> again(loaded->getSerializationSize());
    loaded->serialize(again.data());
    CHECK(again == data);
    CHECK(loaded->initialize() == 0);
    const Owner context(loaded->clone());
    CHECK(context != nullptr);
    if (!context) return;
    of(context).attachToContext(nullptr, nullptr, nullptr);
    for (const LayerCase* problem : {&small, &large, &small})
        CHECK(run(of(context), *problem, large, format, valid[0]));
    context->terminate();
}

void check_description(IPluginCreator& creator, const LayerCase& problem) {
    CHECK(!std::strcmp(creator.getPluginName(), problem.op().name));
    CHECK(!std::strcmp(creator.getPluginVersion(), "1"));
    CHECK(creator.getFieldNames()->nbFields == 9);
    const Owner plugin(creator.createPlugin("node", NodeFields().collection()));
    CHECK(plugin != nullptr);
    if (!plugin) return;
    CHECK(!std::strcmp(plugin->getPluginType(), problem.op().name));
    CHECK(!std::strcmp(plugin->getPluginVersion(), "1"));
    CHECK(!std::strcmp(plugin->getPluginNamespace(), ""));
    plugin->setPluginNamespace("other");
    CHECK(!std::strcmp(Owner(plugin->clone())->getPluginNamespace(), "other"));
    CHECK(plugin->getNbOutputs() == 1);
    const DataType types[8] = {DataType::kHALF};
    CHECK(of(plugin).getOutputDataType(0, types, problem.op().inputs()) == DataType::kHALF);
    Expressions expressions(problem.inputs());
    CHECK(expressions.evaluate(of(plugin).getOutputDimensions(
              0, expressions.inputs(), problem.op().inputs(), expressions.builder())) ==
          problem.output());
}

void check_refused(IPluginCreator& creator, const LayerCase& problem) {
    CHECK_FAILS("field strides: received nothing", [&] {
        if (!creator.createPlugin("node", NodeFields().remove("strides").collection()))
            _exit(EXIT_FAILURE);
    });
    const int32_t words[] = {1, 2, 3};
    CHECK_FAILS("the plugin's data in the engine: received 12 bytes", [&] {
        if (!creator.deserializePlugin("node", words, sizeof words)) _exit(EXIT_FAILURE);
    });
    const Owner plugin(creator.createPlugin("node", NodeFields().collection()));
    if (!plugin) return;
    std::vector<Shape> inputs = problem.inputs();
    inputs[tdc::plugin::kCore][3] = 48;
    CHECK_FAILS("input core: received [3, 5, 16, 48], expected [3, 5, 16, 40]", [&] {
        Expressions expressions(inputs);
        if (of(plugin)
                .getOutputDimensions(0, expressions.inputs(), problem.op().inputs(),
                                     expressions.builder())
                .nbDims < 0)
            _exit(EXIT_FAILURE);
    });
    Tensors tensors(problem, Format::kHalfChannelLast);
    tensors.all[0].dims.d[1] = 21;
    CHECK_FAILS("input X: received [2, 21, 9, 11]", [&] {
        void* outputs[] = {nullptr};
        if (of(plugin).enqueue(tensors.all.data(), tensors.out(), nullptr, outputs, nullptr,
                               nullptr))
            _exit(EXIT_FAILURE);
    });
}

void exercise(IPluginCreator* const (&creators)[2]) {
    for (const bool residual : {false, true}) {
        IPluginCreator& creator = *creators[residual];
        const LayerCase small(residual, 2, 9, 11), large(residual, 3, 14, 12);
        check_description(creator, small);
        for (const Format format :
             {Format::kHalfChannelLast, Format::kFloatChannelLast, Format::kFloatChannelFirst}) {
            check_format(creator, small, large, format, {});
            const std::vector<int> valid = small.valid_tactics(format);
            if (!valid.empty()) check_format(creator, small, large, format, {valid.back()});
        }
        check_refused(creator, small);
    }
}

// Without TensorRT: what its loadLibrary would ask for.
void alone(const char* path) {
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK(library);
    if (!library) return;
    using GetCreators = IPluginCreator* const*(int32_t&);
    auto* get = reinterpret_cast<GetCreators*>(dlsym(library, "getPluginCreators"));
    CHECK(get);
    int32_t count = 0;
    IPluginCreator* const* creators = get(count);
    CHECK(count == 2);
    exercise({creators[0], creators[1]});
    dlclose(library);
}

void in_registry(const char* path, const char* tensorrt_path) {
    void* tensorrt = dlopen(tensorrt_path, RTLD_NOW | RTLD_LOCAL);
    CHECK(tensorrt);
    if (!tensorrt) return;
    using GetRegistry = IPluginRegistry*();
    IPluginRegistry& registry =
        *reinterpret_cast<GetRegistry*>(dlsym(tensorrt, "getPluginRegistry"))();
    const auto creator = [&](const char* name) { return registry.getPluginCreator(name, "1", ""); };
    for (int i = 0; i < 2; ++i) {  // loaded again, it registers again
        CHECK(!creator("TuckerConv") && !creator("TuckerConvAdd"));
        void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        CHECK(library && creator("TuckerConv") && creator("TuckerConvAdd"));
        if (!library) return;
        if (i == 0) exercise({creator("TuckerConv"), creator("TuckerConvAdd")});
        dlclose(library);
    }
    CHECK(!creator("TuckerConv") && !creator("TuckerConvAdd"));
    // Stays to the end of the process, when the registry goes.
    CHECK(dlopen(path, RTLD_NOW | RTLD_LOCAL));
    CHECK(creator("TuckerConv") && creator("TuckerConvAdd"));
}

}  // namespace

int main(int count, char** arguments) {
    if (count > 2)
        in_registry(arguments[1], arguments[2]);
    else
        alone(arguments[1]);
    return tdc::test::result();
}
