// The emulator's machine: runs a grid of fibers, and brings threads together.
//
// One OS thread runs everything: blocks (or clusters) one after another, the threads of a block
// as fibers that change only where they meet (barriers and warp collectives). See README.md in this
// folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <utility>

#include "emulator/cuda_api.h"
#include "emulator/types.h"

namespace tdc::emulator {

// How the next launches run. Every choice is one that a device may make.
struct Options {
    uint64_t seed = 0;  // 0: blocks, warps and lanes in order; else in an order drawn from it
    bool eager_copies = false;  // cp.async lands when it is issued; else when it is waited for
};
Options& options();

// A place in a kernel. As a default argument, here() is where the function is called.
struct Site {
    const char* file = "";
    int line = 0;
    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line};
    }
};

// Prints the message and the running thread to stderr, and aborts.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

struct Launch {
    const char* kernel;  // its name
    dim3 grid, block;
    std::size_t shared_bytes;  // dynamic shared memory
    cudaStream_t stream;       // ignored: a launch returns when the grid has run
    unsigned cluster = 1;      // blocks of a cluster, along x
};

// Lets a kernel have more than 48 KB of dynamic shared memory (cudaFuncSetAttribute).
void allow_dynamic_shared(const void* kernel, std::size_t bytes);

// Brings a kernel onto the device, which its first launch does too; CUDA's lazy loading.
void load(const void* kernel);

void run_grid(const Launch& launch, const void* kernel, const std::function<void()>& body);

// The arguments are converted to the kernel's parameters once, as CUDA does.
template <class... Parameters, class... Arguments>
cudaError_t launch(const Launch& launch, void (*kernel)(Parameters...), Arguments&&... arguments) {
    const std::tuple<Parameters...> parameters(std::forward<Arguments>(arguments)...);
    run_grid(launch, reinterpret_cast<const void*>(kernel),
             [&] { std::apply(kernel, parameters); });
    return cudaSuccess;  // a failure has aborted
}

// Of the running thread:
void* dynamic_shared();  // its block's, exactly as large as asked for
unsigned lane();         // its place in its warp

// Waits for all threads of the block at the same site.
void block_barrier(Site site);

// Waits for the lanes of `mask`. The last to arrive calls `meet` with every lane's `operands`
// (null for lanes outside the mask). Lanes with other masks may wait meanwhile.
using Meet = void (*)(void* const (&operands)[32], uint32_t mask);
void warp_collective(uint32_t mask, const char* name, void* operands, Meet meet, Site site);

// Clusters; tdc/device.h documents them.
unsigned cluster_rank();
void cluster_barrier(Site site);
void* cluster_shared(const void* own, unsigned rank, Site site);

// What the race detector (race.cpp) is told besides the accesses that the compiler reports to it.
// `place` is a return address into the kernel. Null unless the race detector is linked.
enum class Access { kRead, kWrite, kAtomic, kCopyIssued, kCopyFinished };
using Watch = void (*)(Access access, const void* address, std::size_t bytes, const void* place);
extern Watch watch;
inline void note(Access access, const void* address, std::size_t bytes, const void* place) {
    if (watch) watch(access, address, bytes, place);
}

}  // namespace tdc::emulator
