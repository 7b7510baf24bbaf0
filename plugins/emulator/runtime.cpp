// Launches: their limits, the order of clusters and blocks, what is said of a failure.

#include "emulator/runtime.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "emulator/block.h"
#include "emulator/cuda.h"

namespace tdc::emulator {
namespace {

// CUDA C++ Programming Guide, "Compute Capabilities", for 9.0.
constexpr std::size_t kSharedBytesByDefault = 48 << 10, kMostSharedBytes = 227 << 10;
constexpr unsigned kMostThreads = 1024, kMostBlocksOfCluster = 8;

std::map<const void*, std::size_t>& allowed_shared_bytes() {  // by kernel
    static std::map<const void*, std::size_t> allowed;
    return allowed;
}

std::set<const void*>& loaded_kernels() {
    static std::set<const void*> loaded;
    return loaded;
}

void check_limits(const Launch& launch, const void* kernel) {
    const dim3 grid = launch.grid, block = launch.block;
    const auto threads = std::size_t{1} * block.x * block.y * block.z;
    if (threads < 1 || threads > kMostThreads || block.z > 64)
        fail("%s: a block of %zu threads", launch.kernel, threads);
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
        fail("%s: a grid of (%u,%u,%u)", launch.kernel, grid.x, grid.y, grid.z);
    if (!launch.cluster || launch.cluster > kMostBlocksOfCluster || grid.x % launch.cluster)
        fail("%s: clusters of %u blocks, %u blocks along x", launch.kernel, launch.cluster, grid.x);
    const auto found = allowed_shared_bytes().find(kernel);
    const auto most = found == allowed_shared_bytes().end() ? kSharedBytesByDefault : found->second;
    if (launch.shared_bytes > most)
        fail("%s: %zu bytes of dynamic shared memory, %zu allowed", launch.kernel,
             launch.shared_bytes, most);
    if (is_capturing() && !loaded_kernels().count(kernel))
        fail("%s: first launched in a capture; load it before", launch.kernel);
}

std::string text(uint3 index) {
    return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," +
           std::to_string(index.z) + ")";
}

// Blocks that run at the same time.
struct Cluster {
    std::vector<std::unique_ptr<Block>> blocks;  // the first `size` are in use
    unsigned size = 0;
    std::size_t at_barrier = 0;

    void start(const Launch& launch, const std::function<void()>& body, unsigned number);
    void run(std::mt19937_64* random);
    [[noreturn]] void report_deadlock() const;
};
Cluster cluster;

void Cluster::start(const Launch& launch, const std::function<void()>& body, unsigned number) {
    size = launch.cluster;
    at_barrier = 0;
    while (blocks.size() < size) blocks.push_back(std::make_unique<Block>());
    for (unsigned rank = 0; rank < size; ++rank) {
        const unsigned i = number * size + rank;
        blocks[rank]->start(launch, body,
                            {i % gridDim.x, i / gridDim.x % gridDim.y, i / gridDim.x / gridDim.y});
    }
}

void Cluster::run(std::mt19937_64* random) {
    std::vector<Block*> order;
    for (unsigned rank = 0; rank < size; ++rank) order.push_back(blocks[rank].get());
    const auto ended = [](const Block* block) { return block->ended(); };
    while (!std::all_of(order.begin(), order.end(), ended)) {
        if (random) std::shuffle(order.begin(), order.end(), *random);
        bool progress = false;
        for (Block* block : order) progress |= block->step(random);
        if (!progress) report_deadlock();
    }
}

void Cluster::report_deadlock() const {
    std::string waiting;
    for (unsigned rank = 0; rank < size; ++rank)
        waiting += "\n block " + text(blocks[rank]->index()) + blocks[rank]->waiting();
    fail("deadlock in kernel %s:%s", blocks[0]->launch().kernel, waiting.c_str());
}

}  // namespace

Watch watch = nullptr;

Options& options() {
    static Options options;
    return options;
}

void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::fputs("tdc emulator: ", stderr);
    std::vfprintf(stderr, format, arguments);
    va_end(arguments);
    if (const Block* block = Block::running())
        std::fprintf(stderr, "\n  in kernel %s, block %s, thread %s", block->launch().kernel,
                     text(blockIdx).c_str(), text(threadIdx).c_str());
    std::fputs("\n", stderr);
    std::abort();
}

void allow_dynamic_shared(const void* kernel, std::size_t bytes) {
    if (bytes > kMostSharedBytes) fail("%zu bytes of dynamic shared memory: no device has", bytes);
    allowed_shared_bytes()[kernel] = bytes;
}

void load(const void* kernel) { loaded_kernels().insert(kernel); }

void run_grid(const Launch& launch, const void* kernel, const std::function<void()>& body) {
    check_limits(launch, kernel);
    load(kernel);
    gridDim = launch.grid;
    blockDim = launch.block;
    std::mt19937_64 generator(options().seed);
    std::mt19937_64* const random = options().seed ? &generator : nullptr;
    std::vector<unsigned> order(std::size_t{1} * gridDim.x * gridDim.y * gridDim.z /
                                launch.cluster);
    std::iota(order.begin(), order.end(), 0u);
    if (random) std::shuffle(order.begin(), order.end(), *random);
    for (unsigned number : order) {
        cluster.start(launch, body, number);
        cluster.run(random);
    }
}

void* dynamic_shared() { return Block::running()->shared(); }
unsigned lane() { return Block::running()->lane(); }
AsyncCopies& async_copies() { return Block::running()->thread().copies; }

void block_barrier(Site site) { Block::running()->barrier(site); }

void warp_collective(uint32_t mask, const char* name, void* operands, Meet meet, Site site) {
    Block::running()->collective(mask, name, operands, meet, site);
}

const Block* owner(const void* shared) {
    for (unsigned rank = 0; rank < cluster.size; ++rank)
        if (cluster.blocks[rank]->owns(shared)) return cluster.blocks[rank].get();
    return nullptr;
}

unsigned cluster_rank() { return blockIdx.x % cluster.size; }

void cluster_barrier(Site site) {
    Block& block = *Block::running();
    block.wait(State::kAtClusterBarrier, "cluster_sync", site);
    const dim3 shape = block.launch().block;
    if (++cluster.at_barrier == std::size_t{cluster.size} * shape.x * shape.y * shape.z) {
        cluster.at_barrier = 0;
        for (unsigned rank = 0; rank < cluster.size; ++rank)
            cluster.blocks[rank]->pass_cluster_barrier();
    }
    block.suspend();
}

void* cluster_shared(const void* own, unsigned rank, Site site) {
    const Block& block = *Block::running();
    if (!block.owns(own))
        fail("cluster_shared at %s:%d: not in this block's dynamic shared memory", site.file,
             site.line);
    if (rank >= cluster.size || cluster.blocks[rank]->ended())
        fail("cluster_shared at %s:%d: block %u of the cluster has ended or never was", site.file,
             site.line, rank);
    return cluster.blocks[rank]->shared() + block.offset(own);
}

}  // namespace tdc::emulator
