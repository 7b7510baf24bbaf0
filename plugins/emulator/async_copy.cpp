#include "emulator/async_copy.h"

#include <algorithm>
#include <cstring>

namespace tdc::emulator {
namespace {

bool aligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; }

// Lets AddressSanitizer see the destination while the kernel's own line is on the stack.
void touch(const void* shared) {
    const auto* bytes = static_cast<const volatile unsigned char*>(shared);
    (void)bytes[0];
    (void)bytes[15];
}

}  // namespace

void AsyncCopies::issue(void* shared, const void* global, int source_bytes, Site site) {
    if (source_bytes < 0 || source_bytes > 16)
        fail("cp.async of %d bytes at %s:%d", source_bytes, site.file, site.line);
    if (!aligned(shared) || !aligned(global))
        fail("cp.async from %p to %p at %s:%d: not 16-byte aligned", global, shared, site.file,
             site.line);
    touch(shared);
    Copy copy{shared, {}, committed_, __builtin_return_address(0), site};
    note(Access::kCopyIssued, shared, sizeof copy.data, copy.place);
    if (source_bytes) std::memcpy(copy.data, global, static_cast<std::size_t>(source_bytes));
    if (options().eager_copies) std::memcpy(shared, copy.data, sizeof copy.data);
    pending_.push_back(copy);
}

void AsyncCopies::wait(int unfinished_groups) {
    const auto finished = std::find_if(pending_.begin(), pending_.end(), [&](const Copy& copy) {
        return copy.group >= committed_ - unfinished_groups;
    });
    for (auto copy = pending_.begin(); copy != finished; ++copy) {
        note(Access::kCopyFinished, copy->shared, sizeof copy->data, copy->place);
        if (!options().eager_copies) std::memcpy(copy->shared, copy->data, sizeof copy->data);
    }
    pending_.erase(pending_.begin(), finished);
}

void AsyncCopies::clear() {
    pending_.clear();
    committed_ = 0;
}

void AsyncCopies::check_finished() const {
    if (!pending_.empty())
        fail("the thread ends with %zu cp.async not waited for, the first from %s:%d",
             pending_.size(), pending_[0].site.file, pending_[0].site.line);
}

}  // namespace tdc::emulator
