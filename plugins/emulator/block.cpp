#include "emulator/block.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>

#include "emulator/cuda.h"

namespace tdc::emulator {
namespace {

// Of literals, which mostly are the same ones.
bool same(const char* a, const char* b) { return a == b || !std::strcmp(a, b); }

bool same(Site a, Site b) { return a.line == b.line && same(a.file, b.file); }

std::string text(Site site) { return site.file + (":" + std::to_string(site.line)); }

std::vector<unsigned> count_to(std::size_t end) {
    std::vector<unsigned> numbers(end);
    std::iota(numbers.begin(), numbers.end(), 0u);
    return numbers;
}

}  // namespace

Block* Block::running_block_ = nullptr;

void Block::start(const Launch& launch, const std::function<void()>& body, uint3 index) {
    launch_ = &launch;
    body_ = &body;
    index_ = index;
    ++run_;
    barriers_passed_ = cluster_barriers_passed_ = 0;
    size_ = launch.block.x * launch.block.y * launch.block.z;
    ended_ = at_barrier_ = 0;
    while (threads_.size() < size_) threads_.push_back(std::make_unique<Thread>(thread_main));
    for (unsigned i = 0; i < size_; ++i) {
        threads_[i]->state = State::kReady;
        threads_[i]->copies.clear();
    }
    warps_.assign((size_ + 31) / 32, {});
    if (size_ % 32) warps_.back().absent = ~0u << size_ % 32;

    // Of exactly the size asked for: AddressSanitizer guards both its ends. All ones are NaN in
    // every floating-point format: a read before a write shows.
    void* memory = nullptr;
    if (launch.shared_bytes) {
        if (posix_memalign(&memory, 128, launch.shared_bytes)) throw std::bad_alloc();
        std::memset(memory, 0xff, launch.shared_bytes);
    }
    shared_.reset(memory);
}

// One warp runs until all its lanes wait for other warps or have ended, then the next: this drifts
// warps as far apart as barriers allow, which is what shows a missing barrier.
bool Block::step(std::mt19937_64* random) {
    auto warp_order = count_to(warps_.size()), lane_order = count_to(32);
    if (random) {
        std::shuffle(warp_order.begin(), warp_order.end(), *random);
        std::shuffle(lane_order.begin(), lane_order.end(), *random);
    }
    const unsigned passed = barriers_passed_;
    bool progress = false;
    for (unsigned warp : warp_order)
        while (barriers_passed_ == passed && run_lanes(warp, lane_order)) progress = true;
    return progress;
}

// Resumes each lane that is ready, once. Returns whether there was one.
bool Block::run_lanes(unsigned warp, const std::vector<unsigned>& lane_order) {
    bool any = false;
    for (unsigned lane : lane_order) {
        const unsigned i = warp * 32 + lane;
        if (i >= size_ || threads_[i]->state != State::kReady) continue;
        any = true;
        running_ = i;
        running_block_ = this;
        blockIdx = index_;
        threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        threads_[i]->fiber.resume();
        running_block_ = nullptr;
    }
    return any;
}

// A fiber serves one thread of each block in turn.
void Block::thread_main() {
    for (;;) {
        (*running_block_->body_)();
        Block& block = *running_block_;
        block.thread().copies.check_finished();
        block.thread().state = State::kEnded;
        block.warps_[block.running_ / 32].absent |= 1u << block.lane();
        ++block.ended_;
        block.suspend();
    }
}

void Block::wait(State state, const char* operation, Site site) {
    thread().state = state;
    thread().operation = operation;
    thread().site = site;
}

void Block::release(State waiting) {
    for (unsigned i = 0; i < size_; ++i)
        if (threads_[i]->state == waiting) threads_[i]->state = State::kReady;
}

void Block::pass_cluster_barrier() {
    release(State::kAtClusterBarrier);
    ++barriers_passed_;
    ++cluster_barriers_passed_;
}

void Block::barrier(Site site) {
    if (at_barrier_ && !same(site, barrier_site_))
        fail("divergent barrier: this thread waits at %s, others of its block at %s",
             text(site).c_str(), text(barrier_site_).c_str());
    barrier_site_ = site;
    wait(State::kAtBarrier, "__syncthreads", site);
    if (++at_barrier_ == size_) {
        release(State::kAtBarrier);
        at_barrier_ = 0;
        ++barriers_passed_;
    }
    suspend();
}

// The meeting of exactly these lanes, opened if this lane is the first to arrive.
Meeting& Block::join(Warp& warp, uint32_t mask, const char* operation, Site site) {
    for (Meeting& meeting : warp.meetings) {
        if (meeting.mask != mask) continue;
        if (!same(meeting.operation, operation) || !same(meeting.site, site))
            fail("divergent warp: this lane is at %s, %s; lanes %08x at %s, %s", operation,
                 text(site).c_str(), meeting.arrived, meeting.operation,
                 text(meeting.site).c_str());
        return meeting;
    }
    warp.meetings.push_back({mask, 0, operation, site, {}});
    return warp.meetings.back();
}

void Block::collective(uint32_t mask, const char* operation, void* operands, Meet meet, Site site) {
    const unsigned first = running_ / 32 * 32;
    Warp& warp = warps_[running_ / 32];
    if (!(mask >> lane() & 1))
        fail("%s at %s:%d: this lane is not in its own mask %08x", operation, site.file, site.line,
             mask);
    if (mask & warp.absent)
        fail("%s at %s:%d: lanes %08x of mask %08x have ended or never were", operation, site.file,
             site.line, mask & warp.absent, mask);
    Meeting& meeting = join(warp, mask, operation, site);
    meeting.operands[lane()] = operands;
    meeting.arrived |= 1u << lane();
    wait(State::kAtCollective, operation, site);
    if (meeting.arrived != mask) return suspend();
    if (meet)
        meet(meeting.operands, mask);
    else
        ++warp.barriers_passed;  // shuffles and the like do not order memory
    warp.meetings.erase(warp.meetings.begin() + (&meeting - warp.meetings.data()));
    for (unsigned i = 0; i < 32; ++i)
        if (mask >> i & 1) threads_[first + i]->state = State::kReady;
}

std::string Block::waiting() const {
    std::string all;
    for (unsigned i = 0, first = 0; i < size_; ++i) {
        const Thread &self = *threads_[i], *next = i + 1 < size_ ? threads_[i + 1].get() : nullptr;
        if (next && next->state == self.state && same(next->site, self.site)) continue;
        all += "\n  threads " + std::to_string(first) + " to " + std::to_string(i);
        all += self.state == State::kEnded
                   ? std::string(" have ended")
                   : std::string(" wait at ") + self.operation + ", " + text(self.site);
        first = i + 1;
    }
    return all;
}

}  // namespace tdc::emulator
