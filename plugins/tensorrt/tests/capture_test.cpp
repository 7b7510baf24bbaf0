// A layer's launch in the capture of a CUDA graph: it does nothing that a capture forbids, and its
// kernels are loaded before.
#include "../../tests/check.h"
#include "layer_case.h"
#include "tensorrt/core/counters.h"
#include "tensorrt/core/error.h"

namespace tdc::test {
namespace {

class Capture {
  public:
    Capture() { emulator::is_capturing() = true; }
    ~Capture() { emulator::is_capturing() = false; }
};

// As TensorRT calls it: shapes and tactic outside of the capture, only enqueue in it.
void check_tactic(const LayerCase& problem, Format format, int tactic) {
    plugin::Layer layer(problem.op(), LayerCase::attributes({tactic}));
    layer.configure(format, problem.inputs(), problem.inputs());
    layer.set_tactic(tactic);
    layer.set_shapes(format, problem.inputs(), problem.output());
    const auto enqueue = [&](const void* const* inputs, void* y, void* workspace) {
        const Capture capture;
        try {
            layer.launch(inputs, y, workspace, nullptr);
        } catch (const plugin::PluginError& error) {
            std::fprintf(stderr, "  %s\n", error.what());
            return false;
        }
        return true;
    };
    CHECK(problem.is_right(tactic, layer.workspace(format, problem.inputs()), enqueue));
}

// What the others rely on: the emulator refuses what a capture does.
void check_refusals(const LayerCase& problem, int tactic) {
    CHECK_FAILS("first launched in a capture", [&] {
        problem.is_right(tactic, workspace_bytes(tactic, problem.params()),
                         [&](const void* const*, void* y, void* workspace) {
                             TuckerConvParams p = problem.params();
                             p.y = y;
                             p.workspace = workspace;
                             const Capture capture;
                             return launch(tactic, p, nullptr) == cudaSuccess;
                         });
    });
    const Capture capture;
    plugin::Counters counters;
    try {
        counters.reserve(1);
        CHECK(!"counters were allocated");
    } catch (const plugin::PluginError& error) {
        CHECK(std::string(error.what()).find("when stream is capturing") != std::string::npos);
    }
}

void run() {
    const LayerCase problem(true, 1, 5, 7);
    check_refusals(problem, problem.valid_tactics(Format::kHalfChannelLast).front());
    for (const int tactic : all_tactics())
        for (const Format format : kFormats)
            if (!problem.valid_tactics(format, {tactic}).empty())
                check_tactic(problem, format, tactic);
}

}  // namespace
}  // namespace tdc::test

int main() {
    tdc::test::run();
    return tdc::test::result();
}
