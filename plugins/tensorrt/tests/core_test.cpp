// What needs no TensorRT: fields, shapes, formats and tactics, and what they refuse.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "../../tests/check.h"
#include "tensorrt/core/error.h"
#include "tensorrt/core/layer.h"
#include "tensorrt/core/serial.h"

namespace {

using namespace tdc::plugin;

// `run` must be refused, with a message that has every one of the texts.
void refused(const std::vector<std::string>& texts, const std::function<void()>& run, int line) {
    std::string message = "it was not refused";
    try {
        run();
    } catch (const PluginError& error) {
        message = error.what();
    }
    for (const std::string& text : texts) {
        const std::string what = "no '" + text + "' in: " + message;
        tdc::test::check(message.find(text) != std::string::npos, what.c_str(), __FILE__, line);
    }
}
#define REFUSED(texts, ...) refused(std::vector<std::string> texts, [&] { __VA_ARGS__; }, __LINE__)
#define TEXTS(...) {__VA_ARGS__}

constexpr int32_t kStrides[] = {2, 1}, kPads[] = {1, 2, 3, 4}, kDilations[] = {1, 2};
constexpr float kSlopes[] = {.1F, .2F, .3F};
constexpr char kVersion[] = "1";

struct Fields {
    std::vector<Field> all = {
        {"strides", FieldType::kInt32, kStrides, 2},
        {"pads", FieldType::kInt32, kPads, 4},
        {"dilations", FieldType::kInt32, kDilations, 2},
        {"first_slope", FieldType::kFloat32, kSlopes, 1},
        {"core_slope", FieldType::kFloat32, kSlopes + 1, 1},
        {"slope", FieldType::kFloat32, kSlopes + 2, 1},
        {"plugin_version", FieldType::kChars, kVersion, 2},  // with its NUL
        {"plugin_namespace", FieldType::kChars, "", 1},
    };

    Fields without(const std::string& name) const {
        Fields other;
        other.all.clear();
        for (const Field& field : all)
            if (field.name != name) other.all.push_back(field);
        return other;
    }
    Fields with(Field field) const {
        Fields other = without(field.name);
        other.all.push_back(field);
        return other;
    }
    Attributes read(Phase phase = Phase::kBuild) const { return read_attributes(all, phase); }
};

void check_reading() {
    const std::vector<int32_t> tactics(tdc::all_tactics().begin(), tdc::all_tactics().begin() + 3);
    const Attributes a = Fields().with({"tactics", FieldType::kInt32, tactics.data(), 3}).read();
    CHECK((a.strides == std::array<int32_t, 2>{2, 1}));
    CHECK((a.pads == std::array<int32_t, 4>{1, 2, 3, 4}));
    CHECK((a.dilations == std::array<int32_t, 2>{1, 2}));
    CHECK(a.first_slope == .1F && a.core_slope == .2F && a.slope == .3F);
    CHECK(a.tactics == tactics);

    const Attributes plain = Fields()
                                 .without("slope")
                                 .without("core_slope")
                                 .without("first_slope")
                                 .without("plugin_version")
                                 .without("plugin_namespace")
                                 .read();
    CHECK(plain.first_slope == 1 && plain.core_slope == 1 && plain.slope == 1);
    CHECK(plain.tactics.empty());
}

void check_round_trip() {
    Attributes a = Fields().read();
    a.counters = 17;
    a.sizes = {1, 2, 3, 4, 5, 6};
    for (const bool tactics : {false, true}) {
        if (tactics) a.tactics = {tdc::all_tactics()[0]};
        const Attributes b = read_attributes(fields_of(a), Phase::kRuntime);
        CHECK(to_text(a) == to_text(b));
        CHECK(b.counters == 17 && b.sizes == a.sizes);
        CHECK(b.tactics == a.tactics);
    }
}

void check_serial() {
    Attributes a = Fields().read();
    a.counters = 17;
    for (const bool tactics : {false, true}) {
        if (tactics) a.tactics = {tdc::all_tactics()[1], tdc::all_tactics()[0]};
        std::vector<int32_t> words = serialize(a);
        const std::size_t bytes = 4 * words.size();
        const Attributes b = deserialize(words.data(), bytes);
        CHECK(to_text(a) == to_text(b));
        CHECK(b.counters == 17 && b.tactics == a.tactics);
        for (const std::size_t wrong : {bytes - 1, std::size_t{8}, std::size_t{0}})
            REFUSED(TEXTS("data in the engine", std::to_string(wrong) + " bytes"),
                    deserialize(words.data(), wrong));
        ++words[0];
        REFUSED(TEXTS("build the engine again"), deserialize(words.data(), bytes));
    }
}

void check_refused_fields() {
    const Fields good;
    for (const char* name : {"strides", "pads", "dilations"}) {
        REFUSED(TEXTS(std::string("field ") + name, "received nothing", "expected ["),
                good.without(name).read());
        REFUSED(TEXTS(std::string("field ") + name, "received [1]"),
                good.with({name, FieldType::kInt32, kPads, 1}).read());
        REFUSED(TEXTS(std::string("field ") + name, "FLOAT32", "expected INT32"),
                good.with({name, FieldType::kFloat32, kSlopes, 2}).read());
    }
    constexpr int32_t kZeros[] = {0, 0}, kNegative[] = {1, 1, -1, 1};
    REFUSED(TEXTS("field strides", "[0, 0]", "at least 1"),
            good.with({"strides", FieldType::kInt32, kZeros, 2}).read());
    REFUSED(TEXTS("field dilations", "[0, 0]", "at least 1"),
            good.with({"dilations", FieldType::kInt32, kZeros, 2}).read());
    REFUSED(TEXTS("field pads", "[1, 1, -1, 1]", "at least 0"),
            good.with({"pads", FieldType::kInt32, kNegative, 4}).read());

    for (const char* name : {"first_slope", "core_slope", "slope"}) {
        for (const float value : {std::nanf(""), INFINITY, -INFINITY})
            REFUSED(TEXTS(std::string("field ") + name + ":", "one finite FLOAT32"),
                    good.with({name, FieldType::kFloat32, &value, 1}).read());
        REFUSED(TEXTS(std::string("field ") + name + ":", "2 of FLOAT32"),
                good.with({name, FieldType::kFloat32, kSlopes, 2}).read());
        REFUSED(TEXTS(std::string("field ") + name + ":", "2 of another type"),
                good.with({name, FieldType::kOther, kSlopes, 2}).read());
    }
    REFUSED(TEXTS("field plugin_version", "'2'", "'1'"),
            good.with({"plugin_version", FieldType::kChars, "2", 2}).read());
    REFUSED(TEXTS("field plugin_namespace", "'tdc'", "''"),
            good.with({"plugin_namespace", FieldType::kChars, "tdc", 3}).read());
    REFUSED(TEXTS("field stride:", "unknown name", "strides"),
            good.with({"stride", FieldType::kInt32, kStrides, 2}).read());
    Fields twice;
    twice.all.push_back(twice.all[0]);
    REFUSED(TEXTS("field strides", "twice"), twice.read());
    REFUSED(TEXTS("field counters", "unknown name"),
            good.with({"counters", FieldType::kInt32, kPads, 1}).read());
    REFUSED(TEXTS("field plugin_version", "unknown name"), good.read(Phase::kRuntime));
}

void check_refused_tactics() {
    const Fields good;
    const auto read = [&](const std::vector<int32_t>& tactics) {
        good.with({"tactics", FieldType::kInt32, tactics.data(),
                   static_cast<int32_t>(tactics.size())})
            .read();
    };
    const std::vector<int>& all = tdc::all_tactics();
    read({all.begin(), all.begin() + 16});
    REFUSED(TEXTS("field tactics", "at most 16"), read({all.begin(), all.begin() + 17}));
    REFUSED(TEXTS("field tactics", "different"), read({all[0], all[1], all[0]}));
    REFUSED(TEXTS("field tactics", "received 5", "a tactic of this library"), read({all[0], 5}));
}

// C 20, r_in 40, r_out 16, M 12, a 3x5 kernel.
std::vector<Shape> inputs_of(Shape x = {2, 20, 9, 11}) {
    return {std::move(x), {40, 20}, {40}, {3, 5, 16, 40}, {16}, {12, 16}, {12}};
}

Attributes some_attributes() { return Fields().read(); }

void check_layer_of_shapes() {
    // height: (9 + 1 + 3 - 1 * 2 - 1) / 2 + 1 = 6; width: (11 + 2 + 4 - 2 * 4 - 1) / 1 + 1 = 9
    const Shape y{2, 12, 6, 9};
    const tdc::TuckerConvParams p = make_layer(kTuckerConv, some_attributes(), inputs_of(), &y);
    CHECK(p.n == 2 && p.c == 20 && p.h == 9 && p.w == 11);
    CHECK(p.m == 12 && p.h_out == 6 && p.w_out == 9);
    CHECK(p.r_in == 40 && p.r_out == 16 && p.kernel_h == 3 && p.kernel_w == 5);
    CHECK(p.stride_h == 2 && p.stride_w == 1 && p.dilation_h == 1 && p.dilation_w == 2);
    CHECK(p.pad_top == 1 && p.pad_left == 2);
    CHECK(p.first_slope == .1F && p.core_slope == .2F && p.slope == .3F);
    CHECK(!p.x && !p.y && !p.residual && !p.workspace && !p.counters);

    const tdc::TuckerConvParams open =
        make_layer(kTuckerConv, some_attributes(), inputs_of({-1, -1, 9, -1}));
    CHECK(open.n == 0 && open.c == 20 && open.w == 0 && open.h_out == 6 && open.w_out == 0);
}

void check_refused_shapes() {
    const Attributes a = some_attributes();
    struct Wrong {
        int input;
        Shape shape;
        const char* expected;
    };
    const Wrong wrongs[] = {
        {kX, {2, 21, 9, 11}, "[-1, 20, -1, -1]"},
        {kX, {2, 20, 9}, "[-1, 20, -1, -1]"},
        {kFirst, {8}, "constant [r_in, C]"},
        {kFirst, {-1, 20}, "constant [r_in, C]"},
        {kFirstBias, {9}, "[40], which is [r_in]"},
        {kCore, {3, 5, 16, 9}, "[3, 5, 16, 40]"},
        {kCore, {16, 8, 3}, "[kernel height, kernel width, r_out, r_in]"},
        {kCoreBias, {8}, "[16], which is [r_out]"},
        {kLast, {12, 8}, "[12, 16], which is [M, r_out]"},
        {kBias, {12, 1}, "[12], which is [M]"},
    };
    const char* const names[] = {"X", "first", "first_bias", "core", "core_bias", "last", "bias"};
    for (const Wrong& wrong : wrongs) {
        std::vector<Shape> inputs = inputs_of();
        inputs[static_cast<std::size_t>(wrong.input)] = wrong.shape;
        REFUSED(
            TEXTS(std::string("input ") + names[wrong.input] + ": received " + to_text(wrong.shape),
                  wrong.expected),
            make_layer(kTuckerConv, a, inputs));
    }
    REFUSED(TEXTS("the inputs: received 7, expected 8"),
            make_layer(kTuckerConvAdd, a, inputs_of()));
    std::vector<Shape> inputs = inputs_of();
    inputs.push_back({2, 12, 6, 8});
    REFUSED(TEXTS("input R: received [2, 12, 6, 8], expected [2, 12, 6, 9]"),
            make_layer(kTuckerConvAdd, a, inputs));
    const Shape y{2, 12, 6, 8};
    REFUSED(TEXTS("output Y: received [2, 12, 6, 8], expected [2, 12, 6, 9]"),
            make_layer(kTuckerConv, a, inputs_of(), &y));
    REFUSED(TEXTS("input X: width", "received 2", "at least 3"),
            make_layer(kTuckerConv, a, inputs_of({1, 20, 9, 2})));
    REFUSED(TEXTS("input X", "2147483648"),
            make_layer(kTuckerConv, a, inputs_of({int64_t{1} << 31, 20, 9, 11})));
}

// Pretends to be another device while it lives.
class OtherDevice {
  public:
    OtherDevice(int major, int shared_bytes) {
        tdc::emulator::device_attributes().compute_capability_major = major;
        tdc::emulator::device_attributes().shared_bytes_of_a_block = shared_bytes;
    }
    ~OtherDevice() { tdc::emulator::device_attributes() = {}; }
};

void check_tactics() {
    const Attributes a = some_attributes();
    const tdc::TuckerConvParams p = make_layer(kTuckerConv, a, inputs_of());
    const tdc::Device device = device_or_throw();
    std::size_t most = 0;
    for (const Format format :
         {Format::kHalfChannelLast, Format::kFloatChannelLast, Format::kFloatChannelFirst}) {
        std::vector<int> expected;
        for (const int number : tdc::all_tactics()) {
            const std::string name = tdc::describe(number);
            const bool half = name.find(" f16 ") != std::string::npos;
            const bool first = name.find("channel-first") == 0;
            const bool tf32 = name.find(" tf32 ") != std::string::npos;
            if (half != (format == Format::kHalfChannelLast) || tf32) continue;
            if (first != (format == Format::kFloatChannelFirst)) continue;
            ++most;
            if (tdc::is_legal(number, p, device)) expected.push_back(number);
        }
        CHECK(valid_tactics(a, format, p, device) == expected);
        Attributes reversed = a;
        reversed.tactics.assign(expected.rbegin(), expected.rend());
        CHECK(expected.empty() || valid_tactics(reversed, format, p, device) == reversed.tactics);
    }
    // What TensorRT would have to time for one layer.
    CHECK(most <= 100);
    CHECK(!valid_tactics(a, Format::kHalfChannelLast, p, device).empty());
}

void check_unsupported() {
    const Shape y{2, 12, 6, 9};
    const Layer layer(kTuckerConv, some_attributes());
    CHECK(layer.supports(Format::kHalfChannelLast, inputs_of(), y));
    const OtherDevice old(7, 64 << 10);
    REFUSED(TEXTS("no kernel runs this layer as FP16", "r_in 40", "kernel 3x5",
                  "compute capability 7.0 with 65536 bytes", "every tactic"),
            layer.supports(Format::kHalfChannelLast, inputs_of(), y));
    REFUSED(TEXTS("no kernel runs this layer as FP16 kHWC8"),
            Layer(layer).configure(Format::kHalfChannelLast, inputs_of(), inputs_of()));
    Attributes a = some_attributes();
    a.tactics = {tdc::all_tactics()[1]};
    REFUSED(TEXTS("the node's tactics '" + tdc::describe(tdc::all_tactics()[1]) + "'"),
            Layer(kTuckerConv, a).supports(Format::kHalfChannelLast, inputs_of(), y));
    CHECK(Layer(kTuckerConv, a).may_have(Format::kHalfChannelLast));
    CHECK(!Layer(kTuckerConv, a).may_have(Format::kFloatChannelLast));
    CHECK(layer.may_have(Format::kFloatChannelFirst));
}

void check_run_time_device() {
    const Shape y{2, 12, 6, 9};
    Layer layer(kTuckerConv, some_attributes());
    layer.configure(Format::kHalfChannelLast, inputs_of(), inputs_of());
    const int tactic = layer.tactics().back();
    Layer loaded(kTuckerConv, read_attributes(fields_of(layer.attributes()), Phase::kRuntime));
    loaded.set_tactic(tactic);  // before the shapes, as an engine may
    loaded.set_shapes(Format::kHalfChannelLast, inputs_of(), y);
    CHECK(loaded.describe().find(tdc::describe(tactic)) != std::string::npos);
    REFUSED(TEXTS("the tactic: received " + tdc::describe(tactic), "expected one for FP32 kLINEAR"),
            loaded.set_shapes(Format::kFloatChannelFirst, inputs_of(), y));
    REFUSED(TEXTS("the tactic: received 5"), loaded.set_tactic(5));
    const OtherDevice old(7, 64 << 10);
    REFUSED(TEXTS("the tactic: received " + tdc::describe(tactic), "capability 7.0",
                  "build the engine on the device that runs it"),
            loaded.set_shapes(Format::kHalfChannelLast, inputs_of(), y));
    REFUSED(TEXTS("before the shapes were set"),
            Layer(kTuckerConv, some_attributes()).launch(nullptr, nullptr, nullptr, nullptr));
}

// The builder learns what contexts will need, for the largest shapes of all profiles.
void check_counters_of_profiles() {
    Layer layer(kTuckerConv, some_attributes());
    const std::vector<Shape> shapes[] = {inputs_of(), inputs_of({7, 20, 40, 30}),
                                         inputs_of({1, 20, 9, 11})};
    std::size_t most = 0;
    for (const std::vector<Shape>& largest : shapes) {
        layer.configure(Format::kHalfChannelLast, shapes[2], largest);
        const tdc::TuckerConvParams p = make_layer(kTuckerConv, layer.attributes(), largest);
        for (const int tactic : layer.tactics()) most = std::max(most, counter_count(tactic, p));
        CHECK(static_cast<std::size_t>(layer.attributes().counters) == most);
    }
    CHECK(most > 0);
}

void check_identity() {
    const Attributes a = some_attributes();
    std::set<std::string> identities{Layer(kTuckerConv, a).identity(),
                                     Layer(kTuckerConvAdd, a).identity()};
    Attributes b = a;
    b.slope = std::nextafter(b.slope, 1.F);
    identities.insert(Layer(kTuckerConv, b).identity());
    b = a;
    b.pads[3] = 0;
    identities.insert(Layer(kTuckerConv, b).identity());
    b = a;
    b.tactics = {tdc::all_tactics()[0]};
    identities.insert(Layer(kTuckerConv, b).identity());
    CHECK(identities.size() == 5);
    CHECK(Layer(kTuckerConv, a).identity() == Layer(kTuckerConv, a).identity());
}

void check_counters() {
    Counters counters;
    CHECK(!counters.data());
    counters.reserve(3);
    unsigned* const first = counters.data();
    for (int i = 0; i < 3; ++i) CHECK(first[i] == 0);
    counters.reserve(2);
    CHECK(counters.data() == first);
    counters.reserve(400);
    for (int i = 0; i < 400; ++i) CHECK(counters.data()[i] == 0);
    first[2] = 1;  // still there for whoever holds it
}

}  // namespace

int main() {
    check_reading();
    check_round_trip();
    check_serial();
    check_refused_fields();
    check_refused_tactics();
    check_layer_of_shapes();
    check_refused_shapes();
    check_tactics();
    check_unsupported();
    check_run_time_device();
    check_counters_of_profiles();
    check_identity();
    check_counters();
    return tdc::test::result();
}
