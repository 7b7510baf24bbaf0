#include "exercise.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <string>

#include "../../tests/check.h"
#include "v3_node.h"

namespace tdc::test {

using namespace nvinfer1;

namespace {

std::vector<int> offered_tactics(IPluginV3OneBuild& build) {
    std::vector<int> tactics(static_cast<std::size_t>(build.getNbTactics()));
    CHECK(build.getValidTactics(tactics.data(), static_cast<int32_t>(tactics.size())) == 0);
    return tactics;
}

// Every type and layout of X, R and Y that is none of the operator's.
void check_other_formats(IPluginV3OneBuild& build, const LayerCase& problem) {
    for (const auto type : {DataType::kFLOAT, DataType::kHALF, DataType::kINT8})
        for (const auto layout : {TensorFormat::kLINEAR, TensorFormat::kCHW2, TensorFormat::kHWC8,
                                  TensorFormat::kCHW4, TensorFormat::kHWC}) {
            const bool half = type == DataType::kHALF && layout == TensorFormat::kHWC8;
            const bool single = type == DataType::kFLOAT &&
                                (layout == TensorFormat::kLINEAR || layout == TensorFormat::kHWC);
            Tensors tensors(problem, Format::kHalfChannelLast);
            tensors.all[0].desc.type = type;
            tensors.all[0].desc.format = layout;
            CHECK(build.supportsFormatCombination(0, tensors.in(), tensors.inputs, 1) ==
                  (half || single));
        }
}

// Any tensor after X that differs in type or layout from what X asks for.
void check_mixed_formats(IPluginV3OneBuild& build, const LayerCase& problem) {
    const Tensors right(problem, Format::kHalfChannelLast);
    CHECK(supports(build, right));
    for (std::size_t i = 1; i < right.all.size(); ++i) {
        Tensors wrong = right;
        wrong.all[i].desc.type = DataType::kFLOAT;
        CHECK(!supports(build, wrong));
        wrong = right;
        wrong.all[i].desc.format = i >= plugin::kR ? TensorFormat::kLINEAR : TensorFormat::kHWC8;
        CHECK(!supports(build, wrong));
    }
}

// The fields as TensorRT would put them into the engine and get them back.
class Engine {
  public:
    explicit Engine(IPluginV3OneRuntime& runtime) {
        const PluginFieldCollection& given = *runtime.getFieldsToSerialize();
        for (int i = 0; i < given.nbFields; ++i) {
            const PluginField& field = given.fields[i];
            CHECK(field.type == PluginFieldType::kINT32 || field.type == PluginFieldType::kFLOAT32);
            const auto* data = static_cast<const unsigned char*>(field.data);
            names_.emplace_back(field.name);
            data_.emplace_back(data, data + 4 * field.length);
        }
        for (int i = 0; i < given.nbFields; ++i) {
            const auto at = static_cast<std::size_t>(i);
            fields_.emplace_back(names_[at].c_str(), data_[at].data(), given.fields[i].type,
                                 given.fields[i].length);
        }
        collection_ = {given.nbFields, fields_.data()};
    }
    const PluginFieldCollection* fields() const { return &collection_; }

  private:
    std::vector<std::string> names_;
    std::vector<std::vector<unsigned char>> data_;
    std::vector<PluginField> fields_;
    PluginFieldCollection collection_{};
};

// An engine is loaded, and run with every tactic, in turn at the smallest and the largest shapes.
void check_numbers(IPluginCreatorV3One& creator, const Engine& engine, const LayerCase* const* ends,
                   Format format, const std::vector<int>& tactics, std::size_t workspace) {
    const Plugin loaded(creator.createPlugin("node", engine.fields(), TensorRTPhase::kRUNTIME));
    CHECK(loaded);
    if (!loaded) return;
    // What the engine's inspector may ask for before anything runs.
    const std::string known = loaded.build->getMetadataString();
    CHECK(known.find("C 20 r_in 40 r_out 16 M 12 kernel 3x5") != std::string::npos);
    for (std::size_t i = 0; i < tactics.size(); ++i) {
        const int tactic = tactics[i];
        const bool before = i % 3 == 0;  // both orders of setTactic and attachToContext
        if (before) CHECK(loaded.runtime->setTactic(tactic) == 0);
        const Plugin attached(loaded.runtime->attachToContext(nullptr));
        CHECK(attached);
        if (!attached) continue;
        if (!before) CHECK(attached.runtime->setTactic(tactic) == 0);
        CHECK(run(*attached.runtime, *ends[i % 2], format, tactic, workspace));
        const std::string text = attached.build->getMetadataString();
        CHECK(text.find(describe(tactic)) != std::string::npos);
    }
}

void check_format(IPluginCreatorV3One& creator, const LayerCase& small, const LayerCase& large,
                  Format format, const std::vector<int>& given) {
    const Plugin made(
        creator.createPlugin("node", NodeFields(given).collection(), TensorRTPhase::kBUILD));
    CHECK(made);
    if (!made) return;
    const std::vector<int> expected = small.valid_tactics(format, given);
    const Tensors tensors(small, format, &large);
    CHECK(supports(*made.build, tensors) == !expected.empty());
    const bool configured =
        made.build->configurePlugin(tensors.in(), tensors.inputs, tensors.out(), 1) == 0;
    CHECK(configured == !expected.empty());
    if (!configured || expected.empty()) return;
    CHECK(offered_tactics(*made.build) == expected);

    std::size_t workspace = 0;
    for (const int tactic : expected)
        workspace = std::max(workspace, workspace_bytes(tactic, large.params()));
    CHECK(made.build->getWorkspaceSize(tensors.in(), tensors.inputs, tensors.out(), 1) ==
          workspace);

    // As the builder times it: a clone, no context, the usual shapes, then other tactics; the last
    // that needs counters, and the last.
    const Plugin timed(made.owner->clone());
    CHECK(timed);
    CHECK(timed && run(*timed.runtime, large, format, expected[0], workspace));
    const auto counting = std::find_if(expected.rbegin(), expected.rend(), [&](int tactic) {
        return counter_count(tactic, small.params()) > 0;
    });
    for (const int tactic :
         {counting == expected.rend() ? expected[0] : *counting, expected.back()}) {
        CHECK(timed && timed.runtime->setTactic(tactic) == 0);
        CHECK(timed && run(*timed.runtime, small, format, tactic, workspace));
    }

    std::vector<int> run_here = expected;
    if (!given.empty()) {  // the others run without the attribute
        const std::vector<int> elsewhere = small.valid_tactics(format);
        run_here.erase(
            std::remove_if(
                run_here.begin() + 1, run_here.end(),
                [&](int tactic) { return std::count(elsewhere.begin(), elsewhere.end(), tactic); }),
            run_here.end());
    }
    const LayerCase* const ends[] = {&small, &large};
    check_numbers(creator, Engine(*made.runtime), ends, format, run_here, workspace);
}

void check_description(IPluginCreatorV3One& creator, const LayerCase& problem) {
    const char* name = problem.op().name;
    CHECK(!std::strcmp(creator.getPluginName(), name));
    CHECK(!std::strcmp(creator.getPluginVersion(), "1"));
    CHECK(!std::strcmp(creator.getPluginNamespace(), ""));
    const PluginFieldCollection& fields = *creator.getFieldNames();
    std::string names;
    for (int i = 0; i < fields.nbFields; ++i) names += std::string(fields.fields[i].name) + " ";
    CHECK(names ==
          "strides pads dilations first_slope core_slope slope tactics plugin_version "
          "plugin_namespace ");

    const Plugin plugin(
        creator.createPlugin("node", NodeFields().collection(), TensorRTPhase::kBUILD));
    CHECK(plugin);
    if (!plugin) return;
    CHECK(!std::strcmp(plugin.core->getPluginName(), name));
    CHECK(!std::strcmp(plugin.core->getPluginVersion(), "1"));
    CHECK(!std::strcmp(plugin.core->getPluginNamespace(), ""));
    CHECK(plugin.build->getNbOutputs() == 1);
    const DataType types[8] = {DataType::kHALF, DataType::kHALF};
    DataType type = DataType::kINT8;
    CHECK(plugin.build->getOutputDataTypes(&type, 1, types, problem.op().inputs()) == 0);
    CHECK(type == DataType::kHALF);
    CHECK(infer(*plugin.build, problem.inputs()) == problem.output());
    CHECK(plugin.build->getFormatCombinationLimit() == 100);

    const Plugin same(plugin.owner->clone());
    const std::string id = plugin.build->getTimingCacheID();
    CHECK(same && id == same.build->getTimingCacheID());
    const Plugin other(creator.createPlugin("node", NodeFields({all_tactics()[0]}).collection(),
                                            TensorRTPhase::kBUILD));
    CHECK(other && id != other.build->getTimingCacheID());
    check_other_formats(*plugin.build, problem);
    check_mixed_formats(*plugin.build, problem);
}

void check_refused_fields(IPluginCreatorV3One& creator) {
    // In a child process, which ends with failure if there is no plugin.
    const auto create = [&](NodeFields fields) {
        if (!Plugin(creator.createPlugin("node", fields.collection(), TensorRTPhase::kBUILD)))
            _exit(EXIT_FAILURE);
    };
    for (const char* name : {"strides", "pads", "dilations"})
        CHECK_FAILS((std::string("field ") + name + ": received nothing").c_str(),
                    [&] { create(NodeFields().remove(name)); });
    const int32_t zeros[] = {0, 1};
    CHECK_FAILS("field strides: received [0, 1]",
                [&] { create(NodeFields().set({"strides", zeros, PluginFieldType::kINT32, 2})); });
    CHECK_FAILS("field pads: received [0, 1]",
                [&] { create(NodeFields().set({"pads", zeros, PluginFieldType::kINT32, 2})); });
    CHECK_FAILS("field dilations: received 2 of another type", [&] {
        create(NodeFields().set({"dilations", zeros, PluginFieldType::kINT64, 2}));
    });
    const float nan = std::numeric_limits<float>::quiet_NaN();
    CHECK_FAILS("field slope: received nan",
                [&] { create(NodeFields().set({"slope", &nan, PluginFieldType::kFLOAT32, 1})); });
    CHECK_FAILS("field tactics: received 5", [&] { create(NodeFields({5})); });
    CHECK_FAILS("field strides: received nothing", [&] {
        if (!Plugin(creator.createPlugin("node", nullptr, TensorRTPhase::kRUNTIME)))
            _exit(EXIT_FAILURE);
    });
}

// At shape inference, at configurePlugin and at onShapeChange.
void check_refused_shapes(IPluginCreatorV3One& creator, const LayerCase& problem) {
    const Plugin plugin(
        creator.createPlugin("node", NodeFields().collection(), TensorRTPhase::kBUILD));
    if (!plugin) return;
    const std::string name = problem.op().name;
    // X's sizes are not known when shapes are inferred; what depends on them is not seen then.
    const auto refuse_everywhere = [&](const std::string& text, const std::string& text_inferred,
                                       std::size_t tensor, std::size_t axis, int64_t size) {
        const std::string message = name + ": " + text;
        Tensors tensors(problem, Format::kHalfChannelLast);
        DynamicPluginTensorDesc& wrong = tensors.all[tensor];
        wrong.desc.dims.d[axis] = wrong.min.d[axis] = wrong.max.d[axis] = size;
        const std::vector<PluginTensorDesc> fixed = tensors.fixed();
        CHECK_FAILS(message.c_str(), [&] {
            if (plugin.build->configurePlugin(tensors.in(), tensors.inputs, tensors.out(), 1))
                _exit(EXIT_FAILURE);
        });
        CHECK_FAILS(message.c_str(), [&] {
            if (plugin.runtime->onShapeChange(fixed.data(), tensors.inputs,
                                              fixed.data() + tensors.inputs, 1))
                _exit(EXIT_FAILURE);
        });
        if (text_inferred.empty()) return;
        std::vector<Shape> inputs = problem.inputs();
        inputs[tensor][axis] = size;
        CHECK_FAILS((name + ": " + text_inferred).c_str(), [&] {
            if (infer(*plugin.build, inputs).empty()) _exit(EXIT_FAILURE);
        });
    };
    const std::string core = "input core: received [3, 5, 16, 48], expected [3, 5, 16, 40]";
    const std::string last = "input last: received [12, 24], expected [12, 16]";
    const std::string bias = "input bias: received [13], expected [12]";
    refuse_everywhere("input X: received [2, 21, 9, 11]", "input X: received [-1, 21, -1, -1]",
                      plugin::kX, 1, 21);
    refuse_everywhere(core, core, plugin::kCore, 3, 48);
    refuse_everywhere(last, last, plugin::kLast, 1, 24);
    refuse_everywhere(bias, bias, plugin::kBias, 0, 13);
    if (problem.sizes.residual)
        refuse_everywhere("input R: received [2, 12, 7, 9], expected [2, 12, 6, 9]", "", plugin::kR,
                          2, 7);
    refuse_everywhere("output Y: received [2, 13, 6, 9], expected [2, 12, 6, 9]", "",
                      problem.op().inputs(), 1, 13);
}

// Calls that come too early, and what TensorRT should not ask for.
void check_refused_state(IPluginCreatorV3One& creator, const LayerCase& problem) {
    const Plugin plugin(
        creator.createPlugin("node", NodeFields().collection(), TensorRTPhase::kBUILD));
    if (!plugin) return;
    CHECK_FAILS("enqueue was called before the shapes were set", [&] {
        void* outputs[] = {nullptr};
        if (plugin.runtime->enqueue(nullptr, nullptr, nullptr, outputs, nullptr, nullptr))
            _exit(EXIT_FAILURE);
    });
    CHECK_FAILS("the tactic: received 5", [&] {
        if (plugin.runtime->setTactic(5)) _exit(EXIT_FAILURE);
    });
    Tensors tensors(problem, Format::kHalfChannelLast);
    tensors.all[0].desc.format = TensorFormat::kLINEAR;
    CHECK_FAILS("input X: received type 1 in format 0", [&] {
        if (plugin.build->configurePlugin(tensors.in(), tensors.inputs, tensors.out(), 1))
            _exit(EXIT_FAILURE);
    });
}

// As a node's attribute: legal ones of every kind, in another order than the default.
std::vector<int> some_tactics(const LayerCase& problem) {
    std::vector<int> legal, some;
    for (const int tactic : all_tactics())
        if (is_legal(tactic, problem.params(), plugin::device_or_throw())) legal.push_back(tactic);
    const std::size_t step = legal.size() / 16 + 1;
    for (std::size_t i = 0; i < legal.size(); i += step)
        some.push_back(legal[legal.size() - 1 - i]);
    return some;
}

}  // namespace

void exercise(IPluginCreatorV3One* const (&creators)[2]) {
    for (const bool residual : {false, true}) {
        IPluginCreatorV3One& creator = *creators[residual];
        const LayerCase small(residual, 2, 9, 11), large(residual, 3, 14, 12);
        check_description(creator, small);
        const std::vector<int> given = some_tactics(small);
        for (const Format format : kFormats) {
            check_format(creator, small, large, format, {});
            check_format(creator, small, large, format, given);
        }
        check_refused_fields(creator);
        check_refused_shapes(creator, small);
        check_refused_state(creator, small);
    }
}

}  // namespace tdc::test
