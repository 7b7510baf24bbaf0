#include "tensorrt/core/serial.h"

#include <cstring>
#include <string>

#include "tensorrt/core/error.h"

namespace tdc::plugin {
namespace {

constexpr int32_t kFormat = 0x74646301;  // bump the last byte when the words change

// Of all fields but the tactics, which come last.
std::vector<Field> fixed_fields(const Attributes& attributes) {
    std::vector<Field> fields;
    for (const Field& field : fields_of(attributes))
        if (std::strcmp(field.name, "tactics")) fields.push_back(field);
    return fields;
}

}  // namespace

std::vector<int32_t> serialize(const Attributes& attributes) {
    std::vector<int32_t> words{kFormat};
    for (const Field& field : fixed_fields(attributes)) {
        const std::size_t at = words.size(), count = static_cast<std::size_t>(field.length);
        words.resize(at + count);
        std::memcpy(&words[at], field.data, 4 * count);  // INT32 or FLOAT32
    }
    words.insert(words.end(), attributes.tactics.begin(), attributes.tactics.end());
    return words;
}

Attributes deserialize(const void* data, std::size_t bytes) {
    std::vector<int32_t> words(bytes / 4);
    if (data && !words.empty()) std::memcpy(words.data(), data, 4 * words.size());
    const Attributes none{};
    std::vector<Field> fields = fixed_fields(none);
    std::size_t at = 1;
    for (Field& field : fields) {
        field.data = words.data() + at;
        at += static_cast<std::size_t>(field.length);
    }
    if (bytes % 4 || words.size() < at || words[0] != kFormat)
        reject("the plugin's data in the engine", std::to_string(bytes) + " bytes",
               "what this version of the plugin has written: build the engine again");
    if (words.size() > at)
        fields.push_back({"tactics", FieldType::kInt32, words.data() + at,
                          static_cast<int32_t>(words.size() - at)});
    return read_attributes(fields, Phase::kRuntime);
}

}  // namespace tdc::plugin
