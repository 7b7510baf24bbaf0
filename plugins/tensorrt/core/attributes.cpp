#include "tensorrt/core/attributes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "tdc/tactics.h"
#include "tensorrt/core/error.h"

namespace tdc::plugin {
namespace {

constexpr const char* kVersion = "1";
constexpr std::size_t kMostTactics = 16;

std::string name_of(FieldType type) {
    switch (type) {
        case FieldType::kInt32:
            return "INT32";
        case FieldType::kFloat32:
            return "FLOAT32";
        case FieldType::kChars:
            return "CHAR";
        case FieldType::kOther:
            break;
    }
    return "another type";
}

class Reader {
  public:
    explicit Reader(const std::vector<Field>& fields) : fields_(fields) {}

    const Field* find(const char* name) const {
        for (const Field& field : fields_)
            if (!std::strcmp(field.name, name)) return &field;
        return nullptr;
    }

    // Null where the field is not there or empty.
    const Field* find(const char* name, FieldType type) const {
        const Field* field = find(name);
        if (!field || field->length == 0) return nullptr;
        if (field->type != type || field->length < 0 || !field->data)
            reject(subject(name), describe(*field), name_of(type) + "s");
        return field;
    }

    std::vector<int32_t> integers(const char* name) const {
        const Field* field = find(name, FieldType::kInt32);
        if (!field) return {};
        const auto* values = static_cast<const int32_t*>(field->data);
        return {values, values + field->length};
    }

    // All of them at least `least`.
    template <std::size_t kCount>
    void integers(const char* name, const char* meaning, int least,
                  std::array<int32_t, kCount>& values) const {
        const std::string expected =
            std::string(meaning) + " as INT32s of at least " + std::to_string(least);
        if (!find(name)) reject(subject(name), "nothing", expected);
        const std::vector<int32_t> given = integers(name);
        const bool large =
            std::all_of(given.begin(), given.end(), [=](int v) { return v >= least; });
        if (given.size() != kCount || !large) reject(subject(name), to_text(given), expected);
        std::copy(given.begin(), given.end(), values.begin());
    }

    void slope(const char* name, float& value) const {
        const Field* field = find(name, FieldType::kFloat32);
        if (!field) return;
        const auto* values = static_cast<const float*>(field->data);
        if (field->length != 1 || !std::isfinite(values[0]))
            reject(subject(name), describe(*field, values[0]), "one finite FLOAT32");
        value = values[0];
    }

    // The text up to its NUL, which need not be there.
    void text(const char* name, const std::string& expected) const {
        const Field* field = find(name, FieldType::kChars);
        if (!find(name)) return;
        std::string given;
        if (field) given.assign(static_cast<const char*>(field->data), length(*field));
        if (given != expected) reject(subject(name), "'" + given + "'", "'" + expected + "'");
    }

  private:
    static std::string subject(const char* name) { return std::string("field ") + name; }

    static std::size_t length(const Field& field) {
        return strnlen(static_cast<const char*>(field.data),
                       static_cast<std::size_t>(field.length));
    }

    static std::string describe(const Field& field) {
        return std::to_string(field.length) + " of " + name_of(field.type);
    }
    static std::string describe(const Field& field, float first) {
        return field.length == 1 ? std::to_string(first) : describe(field);
    }

    const std::vector<Field>& fields_;
};

std::vector<int32_t> read_tactics(const Reader& reader) {
    const std::vector<int32_t> tactics = reader.integers("tactics");
    const std::set<int32_t> unique(tactics.begin(), tactics.end());
    if (tactics.size() > kMostTactics || unique.size() != tactics.size())
        reject("field tactics", to_text(tactics),
               "at most " + std::to_string(kMostTactics) + " different tactics");
    Tactic tactic{};
    for (const int32_t number : tactics)
        if (!decode(number, tactic))
            reject("field tactics", std::to_string(number), "a tactic of this library's kernels");
    return tactics;
}

const std::vector<Field>& runtime_fields() {
    static const Attributes example{{}, {}, {}, 1, 1, 1, {1}};  // with tactics
    static const std::vector<Field> fields = fields_of(example);
    return fields;
}

void check_names(const std::vector<Field>& fields, const std::vector<Field>& known) {
    std::set<std::string> expected, seen;
    for (const Field& field : known) expected.insert(field.name);
    for (const Field& field : fields) {
        if (!expected.count(field.name)) {
            std::string names;
            for (const std::string& name : expected) names += (names.empty() ? "" : ", ") + name;
            reject(std::string("field ") + field.name, "an unknown name", "one of " + names);
        }
        if (!seen.insert(field.name).second)
            reject(std::string("field ") + field.name, "it twice", "it once");
    }
}

}  // namespace

const std::vector<Field>& node_fields() {
    static const std::vector<Field> fields = {
        {"strides", FieldType::kInt32, nullptr, 2},
        {"pads", FieldType::kInt32, nullptr, 4},
        {"dilations", FieldType::kInt32, nullptr, 2},
        {"first_slope", FieldType::kFloat32, nullptr, 1},
        {"core_slope", FieldType::kFloat32, nullptr, 1},
        {"slope", FieldType::kFloat32, nullptr, 1},
        {"tactics", FieldType::kInt32, nullptr, 0},
        {"plugin_version", FieldType::kChars, nullptr, 0},
        {"plugin_namespace", FieldType::kChars, nullptr, 0},
    };
    return fields;
}

Attributes read_attributes(const std::vector<Field>& fields, Phase phase) {
    check_names(fields, phase == Phase::kBuild ? node_fields() : runtime_fields());
    const Reader reader(fields);
    Attributes attributes{};
    reader.integers("strides", "[height, width]", 1, attributes.strides);
    reader.integers("pads", "[top, left, bottom, right]", 0, attributes.pads);
    reader.integers("dilations", "[height, width]", 1, attributes.dilations);
    reader.slope("first_slope", attributes.first_slope);
    reader.slope("core_slope", attributes.core_slope);
    reader.slope("slope", attributes.slope);
    attributes.tactics = read_tactics(reader);
    reader.text("plugin_version", kVersion);
    reader.text("plugin_namespace", "");
    if (phase == Phase::kRuntime) {
        std::array<int32_t, 1> counters{};
        reader.integers("counters", "[count]", 0, counters);
        attributes.counters = counters[0];
        reader.integers("sizes", "[C, r_in, r_out, M, kernel height, kernel width]", 0,
                        attributes.sizes);
    }
    return attributes;
}

std::vector<Field> fields_of(const Attributes& a) {
    std::vector<Field> fields = {
        {"strides", FieldType::kInt32, a.strides.data(), 2},
        {"pads", FieldType::kInt32, a.pads.data(), 4},
        {"dilations", FieldType::kInt32, a.dilations.data(), 2},
        {"first_slope", FieldType::kFloat32, &a.first_slope, 1},
        {"core_slope", FieldType::kFloat32, &a.core_slope, 1},
        {"slope", FieldType::kFloat32, &a.slope, 1},
        {"counters", FieldType::kInt32, &a.counters, 1},
        {"sizes", FieldType::kInt32, a.sizes.data(), 6},
    };
    if (!a.tactics.empty())
        fields.push_back({"tactics", FieldType::kInt32, a.tactics.data(),
                          static_cast<int32_t>(a.tactics.size())});
    return fields;
}

std::string to_text(const Attributes& a) {
    std::string text = "strides " + to_text(a.strides) + " pads " + to_text(a.pads) +
                       " dilations " + to_text(a.dilations) + " slopes";
    for (const float slope : {a.first_slope, a.core_slope, a.slope}) {
        char number[32];
        std::snprintf(number, sizeof number, " %.9g", static_cast<double>(slope));
        text += number;
    }
    if (!a.tactics.empty()) text += " tactics " + to_text(a.tactics);
    return text;
}

}  // namespace tdc::plugin
