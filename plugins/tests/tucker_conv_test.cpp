// The kernels of one family and arithmetic against the operator in float64:
//
//     tucker_conv_test <fused|unfused|channel-first> <f16|tf32|f32> [shard/shards | case]
//
// Every case runs some of the tactics that are legal for it on this device, in turn, so that each
// tactic meets cases of every kind. A case that is named runs all of them.
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "device_problem.h"

namespace {

using tdc::test::Bounds;
using tdc::test::Case;
using tdc::test::cases;
using tdc::test::DeviceArray;
using tdc::test::DeviceProblem;
using tdc::test::Problem;

constexpr std::size_t kTacticsOfACase = 7, kTacticsOfAWatchedCase = 4;  // at most
constexpr std::size_t kTacticsOfSchedules = 3;  // of a case with `every_schedule`, at most
constexpr std::size_t kCasesOfATactic = 3;      // at least, where so many are legal
constexpr std::size_t kCasesOfAFamily = 300;    // at least

struct Kernels {
    tdc::Family family;
    tdc::Arithmetic arithmetic;
};

struct Shard {
    std::size_t number = 0, count = 1;
};

std::vector<int> legal_tactics(const Kernels& kernels, const Case& layer) {
    tdc::Device device{};
    tdc::test::require(tdc::current_device(device), "current_device");
    std::vector<int> legal;
    for (const int number : tdc::all_tactics()) {
        tdc::Tactic tactic{};
        if (tdc::decode(number, tactic) && tactic.family == kernels.family &&
            tactic.arithmetic == kernels.arithmetic &&
            tdc::is_legal(number, tdc::test::shapes_of(layer), device))
            legal.push_back(number);
    }
    return legal;
}

// The tactics that each case runs: of those that are legal, the ones that ran least so far, and of
// these the ones that are legal for the fewest cases.
using Plan = std::vector<std::vector<int>>;

Plan make_plan(const Kernels& kernels) {
    const std::size_t most = tdc::test::is_watched() ? kTacticsOfAWatchedCase : kTacticsOfACase;
    Plan plan;
    std::map<int, std::size_t> legal_cases, chosen_cases;
    for (const Case& layer : cases()) {
        plan.push_back(legal_tactics(kernels, layer));
        for (const int tactic : plan.back()) ++legal_cases[tactic];
    }
    std::size_t layers = 0;
    for (std::size_t i = 0; i < plan.size(); ++i) {
        std::vector<int>& tactics = plan[i];
        const auto rank = [&](int tactic) {
            return std::pair(chosen_cases[tactic], legal_cases[tactic]);
        };
        std::stable_sort(tactics.begin(), tactics.end(),
                         [&](int a, int b) { return rank(a) < rank(b); });
        tactics.resize(std::min(cases()[i].drawn ? 1 : most, tactics.size()));
        layers += !tactics.empty();
        for (const int tactic : tactics) ++chosen_cases[tactic];
    }
    CHECK(layers >= kCasesOfAFamily);
    for (const auto& [tactic, legal] : legal_cases) {
        const std::size_t chosen = chosen_cases[tactic];
        CHECK(chosen >= std::min(legal, kCasesOfATactic));
        std::printf("%s: %zu of %zu cases\n", tdc::describe(tactic).c_str(), chosen, legal);
    }
    return plan;
}

// Prints where Y is out of bounds; true if it is nowhere.
bool within(const Bounds& bounds, const std::vector<double>& y, const Case& layer) {
    std::size_t wrong = 0, first = 0;
    for (std::size_t i = y.size(); i-- > 0;)
        if (!(y[i] >= bounds.low[i] && y[i] <= bounds.high[i])) ++wrong, first = i;
    if (!wrong) return true;
    const std::size_t m = static_cast<std::size_t>(layer.m), pixel = first / m;
    const std::size_t w = static_cast<std::size_t>(layer.w_out());
    const std::size_t h = static_cast<std::size_t>(layer.h_out());
    std::fprintf(stderr,
                 "  %zu of %zu elements wrong, the first at image %zu, y %zu, x %zu, channel %zu: "
                 "%.9g is not in [%.9g, %.9g]\n",
                 wrong, y.size(), pixel / w / h, pixel / w % h, pixel % w, first % m, y[first],
                 bounds.low[first], bounds.high[first]);
    return false;
}

// A tactic with the memory that it asks for, ready to run on a problem.
class Run {
  public:
    Run(int tactic, DeviceProblem& problem, const Problem& host, const Bounds& bounds)
        : tactic_(tactic),
          problem_(problem),
          host_(host),
          bounds_(bounds),
          params_(problem.params()),
          workspace_(tdc::workspace_bytes(tactic, params_)),
          counters_(tdc::counter_count(tactic, params_) * sizeof(unsigned)) {
        params_.workspace = workspace_.data();
        params_.counters = static_cast<unsigned*>(counters_.data());
        counters_.fill(0);
    }

    // The workspace is as the last launch left it, at first NaN.
    void check_launch() {
        problem_.y.fill(0xFF);
        bool right = tdc::launch(tactic_, params_, nullptr) == cudaSuccess &&
                     cudaDeviceSynchronize() == cudaSuccess;
        const tdc::test::Output output = problem_.output();
        right = within(bounds_, output.values, host_.layer) && output.zero_padding && right;
        for (const unsigned counter : counters_.values<unsigned>()) right &= counter == 0;
        CHECK(right);
        if (!right) report("is wrong");
    }

    // Without memory that it needs, it gives an error and writes nothing.
    void check_refusals() {
        problem_.y.fill(0xFF);
        tdc::TuckerConvParams params = params_;
        params.workspace = nullptr;
        if (params_.workspace) check_refusal(params);
        params = params_;
        params.counters = nullptr;
        if (params_.counters) check_refusal(params);
    }

  private:
    void check_refusal(const tdc::TuckerConvParams& params) {
        const bool refused = tdc::launch(tactic_, params, nullptr) != cudaSuccess;
        const auto bytes = problem_.y.values<unsigned char>();
        const bool untouched = std::all_of(bytes.begin(), bytes.end(),
                                           [](unsigned char byte) { return byte == 0xFF; });
        CHECK(refused && untouched);
        if (!refused || !untouched) report("runs without its workspace or counters");
    }
    void report(const char* what) const {
        std::fprintf(stderr, "  \"%s\": %s %s\n", host_.layer.name, tdc::describe(tactic_).c_str(),
                     what);
    }

    int tactic_;
    DeviceProblem& problem_;
    const Problem& host_;
    const Bounds& bounds_;
    tdc::TuckerConvParams params_;
    DeviceArray workspace_, counters_;
};

void check_case(const Kernels& kernels, std::size_t i, const std::vector<int>& tactics) {
    const Problem problem(cases()[i], kernels.arithmetic);
    const Bounds bounds = problem.bounds();
    DeviceProblem on_device(problem, kernels.family);
    const bool every_schedule = cases()[i].every_schedule && !tdc::test::is_watched();
    std::size_t thorough = every_schedule ? kTacticsOfSchedules : 0;
    for (const int tactic : tactics) {
        Run run(tactic, on_device, problem, bounds);
        run.check_refusals();
        if (thorough) {
            --thorough;
            tdc::test::for_each_schedule([&] { run.check_launch(); });
        } else {
            tdc::test::for_two_schedules(i + 1, [&] { run.check_launch(); });
        }
    }
}

void run_shard(const Kernels& kernels, const Shard& shard) {
    const Plan plan = make_plan(kernels);
    std::size_t pairs = 0, ran = 0;
    for (const std::vector<int>& tactics : plan) pairs += tactics.size();
    for (std::size_t i = shard.number; i < cases().size(); i += shard.count) {
        check_case(kernels, i, plan[i]);
        ran += plan[i].size();
    }
    std::printf("%zu pairs of a case and a tactic ran, of %zu in all shards\n", ran, pairs);
}

void run_case(const Kernels& kernels, const std::string& name) {
    std::size_t ran = 0;
    for (std::size_t i = 0; i < cases().size(); ++i) {
        if (cases()[i].name != name) continue;
        const std::vector<int> tactics = legal_tactics(kernels, cases()[i]);
        check_case(kernels, i, tactics);
        ran += tactics.size();
    }
    CHECK(ran > 0);
    std::printf("%zu tactics ran\n", ran);
}

bool parse(const char* family_name, const char* arithmetic_name, Kernels& kernels) {
    const std::map<std::string, tdc::Family> families = {
        {"fused", tdc::Family::kFused},
        {"unfused", tdc::Family::kUnfused},
        {"channel-first", tdc::Family::kChannelFirst}};
    const std::map<std::string, tdc::Arithmetic> arithmetics = {{"f16", tdc::Arithmetic::kF16},
                                                                {"tf32", tdc::Arithmetic::kTf32},
                                                                {"f32", tdc::Arithmetic::kF32}};
    const auto family = families.find(family_name);
    const auto arithmetic = arithmetics.find(arithmetic_name);
    if (family == families.end() || arithmetic == arithmetics.end()) return false;
    kernels = {family->second, arithmetic->second};
    return true;
}

bool parse(const char* text, Shard& shard) {
    return std::sscanf(text, "%zu/%zu", &shard.number, &shard.count) == 2 &&
           shard.number < shard.count;
}

}  // namespace

int main(int count, char** arguments) {
    Kernels kernels{};
    Shard shard;
    if (count < 3 || count > 4 || !parse(arguments[1], arguments[2], kernels)) {
        std::fprintf(stderr,
                     "usage: %s <fused|unfused|channel-first> <f16|tf32|f32> [0/1 | case]\n",
                     arguments[0]);
        return EXIT_FAILURE;
    }
    if (count == 3 || parse(arguments[3], shard))
        run_shard(kernels, shard);
    else
        run_case(kernels, arguments[3]);
    return tdc::test::result();
}
