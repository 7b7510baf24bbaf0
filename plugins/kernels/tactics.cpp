// The list of tactics, their numbers and names; everything else is passed on to the family.
#include "tdc/tactics.h"

#include <algorithm>

#include "kernels/families.h"

namespace tdc {
namespace {

// A line of configs.def.
struct Line {
    Family family;
    Arithmetic arithmetic;
    const char* name;  // without the split
    bool splits;       // small tiles only: others are for maps that fill the device
};

#define TDC_FUSED(arithmetic, label, h, w, r, wm, wn, c, s)                 \
    {Family::kFused, Arithmetic::arithmetic,                                \
     "fused " label " " #h "x" #w " r" #r " w" #wm "x" #wn " c" #c " s" #s, \
     (h) * (w) <= 64 && (r) <= 64},
#define TDC_FUSED_F16(...) TDC_FUSED(kF16, "f16", __VA_ARGS__)
#define TDC_FUSED_TF32(...) TDC_FUSED(kTf32, "tf32", __VA_ARGS__)
#define TDC_FUSED_F32(...) TDC_FUSED(kF32, "f32", __VA_ARGS__)
#define TDC_UNFUSED(arithmetic, label, r, c, wm, wn, s) \
    {Family::kUnfused, Arithmetic::arithmetic,          \
     "unfused " label " " #r "x" #c " w" #wm "x" #wn " s" #s, false},
#define TDC_UNFUSED_F16(...) TDC_UNFUSED(kF16, "f16", __VA_ARGS__)
#define TDC_UNFUSED_TF32(...) TDC_UNFUSED(kTf32, "tf32", __VA_ARGS__)
#define TDC_UNFUSED_F32(...) TDC_UNFUSED(kF32, "f32", __VA_ARGS__)
#define TDC_CHANNEL_FIRST_F32(h, w, c) \
    {Family::kChannelFirst, Arithmetic::kF32, "channel-first f32 " #h "x" #w " c" #c, false},
constexpr Line kLines[] = {
#include "kernels/configs.def"
};

const FamilyFunctions* family_of(Family family) {
    switch (family) {
        case Family::kFused:
            return &kFusedFamily;
        case Family::kUnfused:
            return &kUnfusedFamily;
        case Family::kChannelFirst:
            return &kChannelFirstFamily;
    }
    return nullptr;
}

const Line* line_of(const Tactic& tactic) {
    int config = 0;
    for (const Line& line : kLines)
        if (line.family == tactic.family && line.arithmetic == tactic.arithmetic &&
            config++ == tactic.config)
            return &line;
    return nullptr;
}

bool exists(const Tactic& tactic) {
    const Line* line = line_of(tactic);
    if (!line) return false;
    if (tactic.split == Split::kNone) return tactic.parts == 1;
    return line->splits && (tactic.parts == 2 || tactic.parts == 4 || tactic.parts == 8);
}

int log2_of(int parts) { return parts == 8 ? 3 : parts / 2; }

std::vector<int> list() {
    constexpr Split kSplits[] = {Split::kNone, Split::kCluster, Split::kTicket};
    std::vector<int> numbers;
    for (const Line& line : kLines) {
        const auto config = static_cast<int>(std::count_if(kLines, &line, [&](const Line& earlier) {
            return earlier.family == line.family && earlier.arithmetic == line.arithmetic;
        }));
        for (const Split split : kSplits)
            for (const int parts : {1, 2, 4, 8}) {
                const Tactic tactic{line.family, line.arithmetic, config, split, parts};
                if (exists(tactic)) numbers.push_back(encode(tactic));
            }
    }
    return numbers;
}

}  // namespace

int encode(const Tactic& t) {
    return static_cast<int>(t.family) | static_cast<int>(t.arithmetic) << 4 | t.config << 8 |
           static_cast<int>(t.split) << 16 | log2_of(t.parts) << 20;
}

bool decode(int number, Tactic& tactic) {
    if (number <= 0 || number >> 24) return false;
    tactic = {static_cast<Family>(number & 15), static_cast<Arithmetic>(number >> 4 & 15),
              number >> 8 & 255, static_cast<Split>(number >> 16 & 15), 1 << (number >> 20 & 15)};
    return static_cast<int>(tactic.split) <= 2 && exists(tactic);
}

const std::vector<int>& all_tactics() {
    static const std::vector<int> numbers = list();
    return numbers;
}

std::string describe(int number) {
    Tactic tactic{};
    if (!decode(number, tactic)) return "no tactic (" + std::to_string(number) + ")";
    std::string text = line_of(tactic)->name;
    if (tactic.split == Split::kCluster) text += " cluster" + std::to_string(tactic.parts);
    if (tactic.split == Split::kTicket) text += " ticket" + std::to_string(tactic.parts);
    return text;
}

bool is_legal(int number, const TuckerConvParams& params, const Device& device) {
    Tactic tactic{};
    return decode(number, tactic) && family_of(tactic.family)->is_legal(tactic, params, device);
}

std::size_t workspace_bytes(int number, const TuckerConvParams& params) {
    Tactic tactic{};
    return decode(number, tactic) ? family_of(tactic.family)->workspace_bytes(tactic, params) : 0;
}

std::size_t counter_count(int number, const TuckerConvParams& params) {
    Tactic tactic{};
    return decode(number, tactic) ? family_of(tactic.family)->counter_count(tactic, params) : 0;
}

cudaError_t load(int number) {
    Tactic tactic{};
    return decode(number, tactic) ? family_of(tactic.family)->load(tactic) : cudaErrorInvalidValue;
}

cudaError_t launch(int number, const TuckerConvParams& params, cudaStream_t stream) {
    Tactic tactic{};
    if (!decode(number, tactic)) return cudaErrorInvalidValue;
    const FamilyFunctions& family = *family_of(tactic.family);
    if (family.workspace_bytes(tactic, params) && !params.workspace) return cudaErrorInvalidValue;
    if (family.counter_count(tactic, params) && !params.counters) return cudaErrorInvalidValue;
    Device device{};
    const cudaError_t error = current_device(device);
    if (error != cudaSuccess) return error;
    if (!family.is_legal(tactic, params, device)) return cudaErrorNotSupported;
    return family.launch(tactic, params, stream);
}

}  // namespace tdc
