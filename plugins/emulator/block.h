// One block: its threads as fibers, their meetings, its shared memory.
#pragma once

#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "emulator/async_copy.h"
#include "emulator/fiber.h"
#include "emulator/runtime.h"

namespace tdc::emulator {

enum class State { kReady, kAtBarrier, kAtClusterBarrier, kAtCollective, kEnded };

struct Thread {
    explicit Thread(void (*entry)()) : fiber(entry) {}
    Fiber fiber;
    State state = State::kEnded;
    const char* operation = "";  // what it waits for, and where
    Site site;
    AsyncCopies copies;
};

// A warp collective that some lanes of its mask have reached.
struct Meeting {
    uint32_t mask, arrived;
    const char* operation;
    Site site;
    void* operands[32];
};

struct Warp {
    uint32_t absent = 0;  // lanes that have ended or never were
    std::vector<Meeting> meetings;
    unsigned barriers_passed = 0;  // __syncwarp
};

// The block of the running cluster that has this address in its dynamic shared memory, or null.
class Block;
const Block* owner(const void* shared);

class Block {
  public:
    static Block* running() { return running_block_; }  // null outside of kernels

    // Called by the grid. The launch and the thread's body must outlive the block's run.
    void start(const Launch& launch, const std::function<void()>& body, uint3 index);
    bool step(std::mt19937_64* random);  // runs what can run; returns whether anything could
    bool ended() const { return ended_ == size_; }
    void pass_cluster_barrier();
    std::string waiting() const;  // where the threads are, for a person

    // Called by the running thread.
    void barrier(Site site);
    void collective(uint32_t mask, const char* operation, void* operands, Meet meet, Site site);
    void wait(State state, const char* operation, Site site);
    void suspend() { thread().fiber.suspend(); }
    Thread& thread() { return *threads_[running_]; }
    unsigned lane() const { return running_ % 32; }

    uint3 index() const { return index_; }
    const Launch& launch() const { return *launch_; }
    unsigned char* shared() const { return static_cast<unsigned char*>(shared_.get()); }

    // Offset of an address in the block's dynamic shared memory; without meaning outside it.
    std::size_t offset(const void* address) const {
        return reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(shared());
    }
    bool owns(const void* address) const { return offset(address) < launch_->shared_bytes; }

    // For the race detector: what orders the running thread's accesses.
    unsigned run() const { return run_; }  // differs for every block that has run here
    unsigned warp() const { return running_ / 32; }
    unsigned cluster_barriers_passed() const { return cluster_barriers_passed_; }
    unsigned barriers_passed() const { return barriers_passed_; }
    unsigned warp_barriers_passed() const { return warps_[warp()].barriers_passed; }

  private:
    static void thread_main();
    void release(State waiting);  // makes the threads that wait so ready
    bool run_lanes(unsigned warp, const std::vector<unsigned>& lane_order);
    Meeting& join(Warp& warp, uint32_t mask, const char* operation, Site site);

    static Block* running_block_;
    const Launch* launch_ = nullptr;
    const std::function<void()>* body_ = nullptr;
    uint3 index_{};
    std::unique_ptr<void, void (*)(void*)> shared_{nullptr, std::free};
    std::vector<std::unique_ptr<Thread>> threads_;  // the first size_ are in use
    std::vector<Warp> warps_;
    unsigned size_ = 0, ended_ = 0, at_barrier_ = 0, run_ = 0;
    unsigned barriers_passed_ = 0, cluster_barriers_passed_ = 0;
    unsigned running_ = 0;  // the thread
    Site barrier_site_;
};

}  // namespace tdc::emulator
