// What a user can mend: the message says what was received and what was expected.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace tdc::plugin {

class PluginError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// Such as "field strides: received [1], expected [height, width]".
[[noreturn]] inline void reject(const std::string& subject, const std::string& received,
                                const std::string& expected) {
    throw PluginError(subject + ": received " + received + ", expected " + expected);
}

template <class Numbers>
std::string to_text(const Numbers& numbers) {
    std::string text = "[";
    for (const auto number : numbers) {
        if (text.size() > 1) text += ", ";
        text += std::to_string(number);
    }
    return text + "]";
}

}  // namespace tdc::plugin
