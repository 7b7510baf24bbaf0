// Attributes as one block of memory, for the interface that has no fields in the engine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensorrt/core/attributes.h"

namespace tdc::plugin {

std::vector<int32_t> serialize(const Attributes& attributes);

// Throws PluginError for what serialize has not written.
Attributes deserialize(const void* data, std::size_t bytes);

}  // namespace tdc::plugin
