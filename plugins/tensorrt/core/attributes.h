// The operator's attributes: read from a creator's fields, checked, and written as fields again.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace tdc::plugin {

enum class FieldType { kInt32, kFloat32, kChars, kOther };

// A named array, as TensorRT's PluginField. Owns nothing.
struct Field {
    const char* name;
    FieldType type;
    const void* data;
    int32_t length;  // elements
};

// What the builder gives comes from the node; at run time, from fields_of.
enum class Phase { kBuild, kRuntime };

struct Attributes {
    std::array<int32_t, 2> strides, dilations;  // height, width
    std::array<int32_t, 4> pads;                // top, left, bottom, right
    float first_slope = 1, core_slope = 1, slope = 1;
    std::vector<int32_t> tactics;  // at most 16, in the order to be tried; empty: the node has none
    // What the builder finds out: how many counters the largest shapes of the profiles need; C,
    // r_in, r_out, M and the kernel's height and width, for people (0 where not known).
    int32_t counters = 0;
    std::array<int32_t, 6> sizes{};
};

// The fields that a node may have.
const std::vector<Field>& node_fields();

// Throws PluginError, naming the field, for one that is missing, unknown, twice there, of another
// type or length, or out of range.
Attributes read_attributes(const std::vector<Field>& fields, Phase phase);

// What read_attributes takes at run time; points into `attributes`.
std::vector<Field> fields_of(const Attributes& attributes);

// All that a node says, as text: equal for equal attributes.
std::string to_text(const Attributes& attributes);

}  // namespace tdc::plugin
