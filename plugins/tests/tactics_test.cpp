// The list of tactics, and what is legal where: no kernel runs.
#include "tdc/tactics.h"

#include <algorithm>
#include <set>
#include <vector>

#include "check.h"
#include "problem.h"

namespace {

using tdc::Arithmetic;
using tdc::Device;
using tdc::Family;
using tdc::Split;
using tdc::Tactic;
using tdc::TuckerConvParams;

constexpr std::size_t kMostShared = 227 << 10;
const Device kHopper = {90, kMostShared, 132}, kAmpere = {80, 163 << 10, 108};

Tactic decoded(int number) {
    Tactic tactic{};
    CHECK(tdc::decode(number, tactic));
    return tactic;
}

std::vector<TuckerConvParams> layers() {
    std::vector<TuckerConvParams> all;
    for (const tdc::test::Case& layer : tdc::test::cases())
        all.push_back(tdc::test::shapes_of(layer));
    return all;
}

// A block of ResNet's, with ranks that every split can divide.
TuckerConvParams ordinary_layer() { return tdc::test::shapes_of(tdc::test::cases().front()); }

void check_numbers() {
    std::set<int> numbers;
    std::set<std::string> names;
    for (const int number : tdc::all_tactics()) {
        CHECK(number > 0 && number < 1 << 24);
        CHECK(tdc::encode(decoded(number)) == number);
        numbers.insert(number);
        names.insert(tdc::describe(number));
    }
    CHECK(numbers.size() == tdc::all_tactics().size());
    CHECK(names.size() == tdc::all_tactics().size());
    CHECK(!tdc::all_tactics().empty());
}

// Each bit flipped, and a few that were never numbers.
void check_no_tactics() {
    const std::set<int> known(tdc::all_tactics().begin(), tdc::all_tactics().end());
    std::set<int> others = {0, -1, 1, 1 << 24, 0x7fffffff, -0x7fffffff - 1};
    for (const int number : known)
        for (int bit = 0; bit < 31; ++bit)
            if (!known.count(number ^ 1 << bit)) others.insert(number ^ 1 << bit);
    const TuckerConvParams layer = ordinary_layer();
    for (const int number : others) {
        Tactic tactic{};
        CHECK(!tdc::decode(number, tactic));
        CHECK(tdc::describe(number) == "no tactic (" + std::to_string(number) + ")");
        CHECK(!tdc::is_legal(number, layer, kHopper));
        CHECK(tdc::workspace_bytes(number, layer) == 0 && tdc::counter_count(number, layer) == 0);
        CHECK(tdc::launch(number, layer, nullptr) == cudaErrorInvalidValue);
    }
}

// All that are listed can be used for something, and a device can take that away.
void check_devices() {
    for (const int number : tdc::all_tactics()) {
        const Tactic tactic = decoded(number);
        bool ever = false;
        for (const TuckerConvParams& layer : layers()) {
            const bool legal = tdc::is_legal(number, layer, kHopper);
            ever |= legal;
            const bool cluster = tactic.split == Split::kCluster;
            const Device newest_before = {89, kMostShared, 132};
            CHECK(tdc::is_legal(number, layer, newest_before) == (legal && !cluster));
            if (tactic.arithmetic != Arithmetic::kF32)
                CHECK(!tdc::is_legal(number, layer, {75, kMostShared, 132}));
            if (tdc::is_legal(number, layer, kAmpere)) CHECK(legal);
        }
        CHECK(ever);
        if (!ever) std::fprintf(stderr, "  %s is never legal\n", tdc::describe(number).c_str());
    }
}

// What is legal with some shared memory is legal with more, and nothing is without any.
void check_shared_memory() {
    for (const int number : tdc::all_tactics())
        for (const TuckerConvParams& layer : layers()) {
            bool before = false;
            for (std::size_t bytes = 0; bytes <= kMostShared; bytes += kMostShared / 8) {
                const bool legal = tdc::is_legal(number, layer, {90, bytes, 132});
                CHECK(legal || !before);
                CHECK(!legal || bytes > 0);
                before = legal;
            }
        }
}

// Legality looks at channels, ranks, kernel, strides and dilations alone.
void check_what_is_looked_at() {
    for (const int number : tdc::all_tactics())
        for (const TuckerConvParams& layer : layers()) {
            TuckerConvParams other = layer;
            other.n += 3, other.h += 50, other.w += 60, other.h_out += 50, other.w_out += 60;
            other.pad_top += 1, other.pad_left += 1;
            CHECK(tdc::is_legal(number, layer, kHopper) == tdc::is_legal(number, other, kHopper));
        }
}

// A workspace for the largest shapes of a range serves all of the range.
void check_memory_grows() {
    for (const int number : tdc::all_tactics())
        for (const TuckerConvParams& layer : layers()) {
            if (!tdc::is_legal(number, layer, kHopper)) continue;
            const auto check_larger = [&](int images, int rows, int columns) {
                TuckerConvParams larger = layer;
                larger.n += images;
                larger.h += rows * larger.stride_h, larger.h_out += rows;
                larger.w += columns * larger.stride_w, larger.w_out += columns;
                CHECK(tdc::workspace_bytes(number, layer) <= tdc::workspace_bytes(number, larger));
                CHECK(tdc::counter_count(number, layer) <= tdc::counter_count(number, larger));
            };
            check_larger(1, 0, 0);
            check_larger(0, 1, 0);
            check_larger(0, 0, 1);
            check_larger(2, 9, 30);
        }
}

// What a family promises beyond that.
void check_families() {
    TuckerConvParams layer = ordinary_layer();
    const auto count = [&](Family family, Arithmetic arithmetic) {
        return std::count_if(tdc::all_tactics().begin(), tdc::all_tactics().end(), [&](int number) {
            const Tactic tactic = decoded(number);
            return tactic.family == family && tactic.arithmetic == arithmetic &&
                   tdc::is_legal(number, layer, kHopper);
        });
    };
    for (const Arithmetic a : {Arithmetic::kF16, Arithmetic::kTf32, Arithmetic::kF32}) {
        CHECK(count(Family::kFused, a) > 0);
        CHECK(count(Family::kUnfused, a) > 0);
    }
    CHECK(count(Family::kChannelFirst, Arithmetic::kF32) > 0);
    layer.r_in = 13;  // only graph surgery makes it a multiple of 8
    for (const Arithmetic a : {Arithmetic::kF16, Arithmetic::kTf32, Arithmetic::kF32}) {
        CHECK(count(Family::kFused, a) == 0);
        CHECK(count(Family::kUnfused, a) == 0);
    }
    CHECK(count(Family::kChannelFirst, Arithmetic::kF32) > 0);
    // T2 of the smallest tile does not fit in shared memory.
    layer = ordinary_layer();
    layer.r_in = layer.r_out = 8192;
    CHECK(count(Family::kFused, Arithmetic::kF16) == 0);
    CHECK(count(Family::kUnfused, Arithmetic::kF16) > 0);
}

// On a device where it is not legal, a tactic gives an error and touches nothing: the pointers here
// are null.
void check_refusals() {
    auto& attributes = tdc::emulator::device_attributes();
    const auto before = attributes;
    attributes.compute_capability_major = 7, attributes.compute_capability_minor = 5;
    attributes.shared_bytes_of_a_block = 1024;
    for (const int number : tdc::all_tactics())
        CHECK(tdc::launch(number, ordinary_layer(), nullptr) != cudaSuccess);
    attributes = before;
}

// What a kernel's ints cannot count gives an error, too: nothing runs, on no memory.
void check_too_large() {
    TuckerConvParams channels = ordinary_layer(), pixels = channels;
    channels.m = 1 << 27;
    pixels.n = pixels.w = pixels.w_out = 1;
    pixels.h = pixels.h_out = 0x7fffffff;
    unsigned nothing = 0;
    for (TuckerConvParams* layer : {&channels, &pixels})
        layer->workspace = layer->counters = &nothing;
    for (const int number : tdc::all_tactics()) {
        const Family family = decoded(number).family;
        if (family == Family::kChannelFirst) continue;  // it counts in more than an int
        const TuckerConvParams& layer = family == Family::kFused ? channels : pixels;
        if (tdc::is_legal(number, layer, kHopper))
            CHECK(tdc::launch(number, layer, nullptr) == cudaErrorInvalidConfiguration);
    }
}

// Brought onto the device, or not there.
void check_loading() {
    for (const int number : tdc::all_tactics()) CHECK(tdc::load(number) == cudaSuccess);
    CHECK(tdc::load(0) == cudaErrorInvalidValue);
}

}  // namespace

int main() {
    check_numbers();
    check_no_tactics();
    check_devices();
    check_shared_memory();
    check_what_is_looked_at();
    check_memory_grows();
    check_families();
    check_refusals();
    check_too_large();
    check_loading();
    return tdc::test::result();
}
