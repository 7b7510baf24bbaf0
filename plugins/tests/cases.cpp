#include <algorithm>
#include <list>
#include <random>
#include <string>

#include "problem.h"

namespace tdc::test {
namespace {

// clang-format off
const std::vector<Case> kChosen = {
    // The 18 core shapes of TDC's paper (r_in, r_out, map), with few channels around them; larger
    // maps are cut to ones with the same kind of remainder, larger ranks halved on large maps.
    //                     n   h   w   c   m   ri   ro kh kw sh sw  t  l  b  r dh dw  res  slopes, every schedule
    {"64,32,224",          1, 16, 20, 24, 16,  64,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, 0},
    {"64,32,112",          1, 16, 16, 16, 40,  64,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0},
    {"32,32,56",           1, 16, 24, 64, 64,  32,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, 1},
    {"64,32,56",           1, 12, 16, 72, 64,  64,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 0, 0, 0},
    {"64,64,56",           1, 16, 12, 32, 24,  64,  64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, .1F},
    {"32,32,28",           2, 12, 12, 48, 64,  32,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0},
    {"64,32,28",           1, 12, 12, 64, 72,  64,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, 0},
    {"96,64,28",           1, 12, 10, 24, 32,  48,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, .2F, 1, 0},
    {"160,96,28",          1, 12, 10, 32, 32,  80,  48, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 1},
    {"192,96,28",          1, 10, 12, 32, 64,  96,  48, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 0, 0},
    {"32,32,14",           1, 14, 14, 64, 64,  32,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0},
    {"64,32,14",           1, 14, 10, 40, 48,  64,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, 0},
    {"128,96,14",          1, 14,  7, 40, 64,  64,  48, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 0, .3F, 1},
    {"192,96,14",          1,  7, 14, 24, 16,  96,  48, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, 0},
    {"32,32,7",            2,  7,  7, 96, 64,  32,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0},
    {"64,32,7",            1,  7,  7, 80, 80,  64,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, 0},
    {"96,64,7",            1,  7,  7, 64, 96,  96,  64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0},
    {"192,160,7",          1,  7,  7, 32, 40, 192, 160, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0},
    // Ranks, and how they fall on passes, chunks and parts.
    {"smallest ranks",     1, 10,  9, 16, 16,   8,   8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, 0},
    {"parts of 40",        1,  8,  8, 32, 32,  40,  16, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 0, 0, 0, true},
    {"parts of 72",        1,  7,  9, 24, 24,  72,  24, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 0, 1, true},
    {"parts of 104",       2,  5,  6, 16, 32, 104,  40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, .2F, 0},
    {"parts of 136",       1,  6,  6, 48, 72, 136,  64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 0, 1, 1},
    {"over two passes",    1,  6,  6, 40, 136, 72, 136, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, .5F, .5F, .5F},
    {"ranks of 13 and 27", 1,  9,  8, 20, 17,  13,  27, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 0, .3F, 0},
    {"ranks of 1 and 2",   1,  6,  5,  7,  9,   1,   2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 1, 1},
    {"ranks of 70 and 34", 1,  7,  7, 12, 12,  70,  34, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, true, 0, 0, 0, true},
    // C and M.
    {"C 3",                1, 18, 18,  3, 32,  16,  16, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, false, 1, 1, 0},
    {"C 19, M 21",         1,  7,  7, 19, 21,  64,   8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0, true},
    {"C 20, M 12",         2,  9,  6, 20, 12,  16,  64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 0, 1, 0},
    {"C 40, M 5",          1,  8,  8, 40,  5,  16,  24, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, .1F},
    {"C 1, M 1",           1,  6,  7,  1,  1,  64,  64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 1, 0, 1},
    {"C 200, M 264",       1,  4,  5, 200, 264, 64, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0},
    // Kernels, strides, dilations and pads.
    {"1x1",                1,  5,  6, 32, 32,  16,  16, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, false, 1, 1, 1},
    {"1x1, stride 2",      2,  9,  8, 40, 64,  64,  40, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, true, 0, 0, 0, true},
    {"5x5",                1, 11, 10, 16, 24,  64,  16, 5, 5, 1, 1, 2, 2, 2, 2, 1, 1, false, 1, 1, 0},
    {"5x5, dilation 2",    1, 12, 12, 24, 24,   8,  16, 5, 5, 1, 1, 4, 4, 4, 4, 2, 2, false, 1, 0, 1},
    {"7x7, stride 2",      1, 19, 17, 16, 32,   8,  32, 7, 7, 2, 2, 3, 3, 3, 3, 1, 1, true, 1, 1, 0},
    {"1x7",                1,  9, 16, 16, 16,  64,   8, 1, 7, 1, 1, 0, 6, 0, 0, 1, 1, false, 0, 1, 1},
    {"7x1",                1, 16,  9, 24, 16,  24,  24, 7, 1, 1, 1, 3, 0, 3, 0, 1, 1, true, 1, 1, 0},
    {"3x5, dilation 1x2",  1,  9, 13, 16, 24,  16,  40, 3, 5, 1, 1, 1, 4, 1, 4, 1, 2, false, 1, 1, 0},
    {"stride 2",           1, 15, 13, 64, 128, 64,  32, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, false, 1, 1, 0},
    {"stride 1x2, no pad", 3,  6, 10, 32, 32,  16,  16, 3, 3, 1, 2, 0, 0, 0, 0, 1, 1, false, 1, 1, 0},
    {"stride 3, kernel 1", 1, 14, 11, 16, 16,  64,  24, 1, 3, 3, 3, 0, 0, 0, 2, 1, 1, true, 1, 1, 0},
    {"dilation 2",         1, 12, 11, 24, 32,  72,  32, 3, 3, 1, 1, 2, 2, 2, 2, 2, 2, true, 0, 0, 0},
    {"stride 2, dilated",  1, 13, 14, 16, 16,  32,  16, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, false, 1, 1, .2F, true},
    {"pad right, bottom",  1,  8,  8, 24, 16,  64,  16, 3, 3, 2, 2, 0, 0, 1, 1, 1, 1, false, 1, 1, 0},
    {"pads all differ",    1,  7,  6, 16, 24,  24,  16, 3, 3, 1, 1, 2, 0, 1, 3, 1, 1, true, .1F, .2F, .3F},
    // Maps.
    {"one pixel",          1,  1,  1, 64, 64,  64,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0},
    {"one pixel of 3x3",   2,  3,  3, 24, 16,  64,  24, 3, 3, 1, 1, 0, 0, 0, 0, 1, 1, false, 1, 0, 0, true},
    {"one row",            1,  1, 19, 32, 16,  40,  16, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0, true},
    {"one column",         2, 17,  1, 16, 32,  64,  32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, false, 0, 0, 1},
    {"batch of 5",         5,  4,  4, 24, 24,  16,  16, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, 1, 1, 0, true},
    // Activations that fall below zero, with all slopes different.
    {"slopes below zero",  1,  7,  6, 24, 20,  64,  24, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, true, -.3F, -1, -.6F},
    {"one below zero",     2,  6,  5, 19, 32,  72,  40, 3, 3, 2, 1, 1, 1, 1, 1, 1, 1, false, .2F, -2, 0},
};
// clang-format on

constexpr int kDrawn = 270;

// Along one axis: a kernel of 1 to 7 taps with its stride, dilation, pads and a map that it fits.
struct Axis {
    int size, kernel, stride, dilation, before, after;
};

class Drawing {
  public:
    Case layer(const char* name) {
        const Axis y = axis(), x = axis();
        const bool any_rank = between(1, 16) == 1;  // only the channel-first family takes those
        const int c = between(1, 40), m = between(1, 40);
        const int r_in = any_rank ? between(1, 30) : 8 * between(1, 4);
        const int r_out = any_rank ? between(1, 30) : 8 * between(1, 3);
        const bool residual = between(0, 1) == 1;
        const float first_slope = slope(), core_slope = slope(), last_slope = slope();
        const int n = between(1, 4) == 1 ? 2 : 1;
        return {name,     n,           y.size,     x.size,     c,          m,
                r_in,     r_out,       y.kernel,   x.kernel,   y.stride,   x.stride,
                y.before, x.before,    y.after,    x.after,    y.dilation, x.dilation,
                residual, first_slope, core_slope, last_slope, false,      true};
    }

  private:
    // Not by a distribution of the library, which every library may define in its own way.
    int between(int low, int high) {
        return low + static_cast<int>(random_() % static_cast<unsigned>(high - low + 1));
    }
    float slope() {
        constexpr float kSlopes[] = {1, 1, 0, 0, .25F, -.5F};
        return kSlopes[between(0, 5)];
    }
    Axis axis() {
        constexpr int kKernels[] = {1, 3, 3, 3, 5, 7};
        Axis a{};
        a.kernel = kKernels[between(0, 5)];
        a.stride = between(1, 2);
        a.dilation = between(1, 4) == 1 ? 2 : 1;
        const int reach = (a.kernel - 1) * a.dilation;
        a.before = between(0, reach), a.after = between(0, reach);
        a.size = std::max(1, reach + 1 - a.before - a.after) + between(0, 5);
        return a;
    }

    std::mt19937 random_{11};
};

std::vector<Case> all_cases() {
    static std::list<std::string> names;
    std::vector<Case> all = kChosen;
    Drawing drawing;
    for (int i = 0; i < kDrawn; ++i) {
        names.push_back("drawn " + std::to_string(i));
        all.push_back(drawing.layer(names.back().c_str()));
    }
    return all;
}

}  // namespace

const std::vector<Case>& cases() {
    static const std::vector<Case> all = all_cases();
    return all;
}

}  // namespace tdc::test
