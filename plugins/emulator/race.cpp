// The race detector: finds two accesses to dynamic shared memory, at least one of them a write,
// that no barrier orders, in whatever order they happened to run.
//
// The kernel's file is compiled with -fsanitize=thread, so that the compiler reports every access
// to a function; the program is linked without that option, and the functions are these.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "emulator/block.h"

extern "C" const char __executable_start;  // of the linker: where the program was loaded

namespace tdc::emulator {
namespace {

constexpr unsigned kNever = ~0u, kSeveralLanes = 32;

// Who accessed a byte, and how many barriers they had passed.
struct Event {
    const Block* block = nullptr;
    unsigned warp = kNever, lane = 0;
    unsigned cluster_barriers = 0, barriers = 0, warp_barriers = 0;
    const void* place = nullptr;

    bool same_warp(const Event& other) const { return block == other.block && warp == other.warp; }
};

Event now(const void* place) {
    const Block& block = *Block::running();
    return {&block,
            block.warp(),
            block.lane(),
            block.cluster_barriers_passed(),
            block.barriers_passed(),
            block.warp_barriers_passed(),
            place};
}

bool ordered(const Event& before, const Event& after) {
    if (before.warp == kNever || before.cluster_barriers < after.cluster_barriers) return true;
    if (before.block != after.block) return false;
    if (before.barriers < after.barriers) return true;
    return before.warp == after.warp &&
           (before.warp_barriers < after.warp_barriers || before.lane == after.lane);
}

struct Byte {
    Event write, read;
    Event other_read;  // the last by another warp than `read`
    bool atomic = false, copying = false;
};

struct Shadow {
    unsigned run = 0;
    std::vector<Byte> bytes;
};

std::string line_of(const void* place) {
    const auto offset = static_cast<const char*>(place) - &__executable_start - 1;
    char command[128], text[1024];
    std::snprintf(command, sizeof command, "addr2line -fiCe /proc/%d/exe %#tx", getpid(), offset);
    std::string lines;
    if (FILE* output = popen(command, "r")) {
        while (std::fgets(text, sizeof text, output)) lines += std::string("    ") + text;
        pclose(output);
    }
    return lines;
}

[[noreturn]] void report(const char* what, std::size_t offset, const Event& one, const Event& two) {
    fail("race: %s, byte %zu of dynamic shared memory\n  warp %u:\n%s  and warp %u:\n%s", what,
         offset, one.warp, line_of(one.place).c_str(), two.warp, line_of(two.place).c_str());
}

void read(Byte& byte, Event event) {
    if (!byte.read.same_warp(event))
        byte.other_read = byte.read;
    else if (byte.read.barriers == event.barriers &&
             byte.read.warp_barriers == event.warp_barriers && byte.read.lane != event.lane)
        event.lane = kSeveralLanes;
    byte.read = event;
}

void access(Byte& byte, Access access, std::size_t offset, const Event& event) {
    if (access == Access::kCopyFinished) {
        byte.copying = false;
        byte.write = event;
        return;
    }
    const bool writes = access != Access::kRead, atomic = access == Access::kAtomic;
    if (byte.copying) report("access to what cp.async is writing", offset, byte.write, event);
    if (!ordered(byte.write, event) && !(atomic && byte.atomic))
        report(writes ? "write after write" : "read after write", offset, byte.write, event);
    if (!writes) return read(byte, event);
    for (const Event& before : {byte.read, byte.other_read})
        if (!ordered(before, event)) report("write after read", offset, before, event);
    byte.write = event;
    byte.atomic = atomic;
    byte.copying = access == Access::kCopyIssued;
}

void access_range(Access kind, const void* address, std::size_t bytes, const void* place) {
    if (!Block::running()) return;
    const Block* const block = owner(address);
    if (!block) return;
    static std::map<const Block*, Shadow> shadows;
    Shadow& shadow = shadows[block];
    if (shadow.run != block->run())
        shadow = {block->run(), std::vector<Byte>(block->launch().shared_bytes)};
    const std::size_t begin = block->offset(address);
    const std::size_t end = std::min(begin + bytes, shadow.bytes.size());
    const Event event = now(place);
    for (std::size_t i = begin; i < end; ++i) access(shadow.bytes[i], kind, i, event);
}

}  // namespace
}  // namespace tdc::emulator

using tdc::emulator::Access;
using tdc::emulator::access_range;

#define TDC_ACCESS(name, kind, bytes)                                            \
    void name(const void* address) {                                             \
        access_range(Access::kind, address, bytes, __builtin_return_address(0)); \
    }
#define TDC_ACCESSES(bytes)                                  \
    TDC_ACCESS(__tsan_read##bytes, kRead, bytes)             \
    TDC_ACCESS(__tsan_write##bytes, kWrite, bytes)           \
    TDC_ACCESS(__tsan_unaligned_read##bytes, kRead, bytes)   \
    TDC_ACCESS(__tsan_unaligned_write##bytes, kWrite, bytes) \
    TDC_ACCESS(__tsan_volatile_read##bytes, kRead, bytes)    \
    TDC_ACCESS(__tsan_volatile_write##bytes, kWrite, bytes)

extern "C" {
TDC_ACCESSES(1)
TDC_ACCESSES(2)
TDC_ACCESSES(4)
TDC_ACCESSES(8)
TDC_ACCESSES(16)
void __tsan_read_range(const void* address, std::size_t bytes) {
    access_range(Access::kRead, address, bytes, __builtin_return_address(0));
}
void __tsan_write_range(const void* address, std::size_t bytes) {
    access_range(Access::kWrite, address, bytes, __builtin_return_address(0));
}
void __tsan_init() { tdc::emulator::watch = access_range; }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
