// Zeroed counters in device memory.
#pragma once

#include <cstddef>
#include <vector>

namespace tdc::plugin {

class Counters {
  public:
    Counters() = default;
    ~Counters();
    Counters(const Counters&) = delete;
    Counters& operator=(const Counters&) = delete;

    // Makes room for `count`. Allocates and waits if there is not: never during enqueue. Counters
    // handed out before stay valid, since a captured graph may hold them. Throws PluginError.
    void reserve(std::size_t count);

    unsigned* data() const { return blocks_.empty() ? nullptr : blocks_.back(); }

  private:
    std::vector<unsigned*> blocks_;
    std::size_t count_ = 0;
};

}  // namespace tdc::plugin
