// The CUDA C++ language and library as far as kernels use it: keywords, built-in variables,
// synchronisation, warp functions, atomics. Names and meaning are those of the CUDA C++ Programming
// Guide, "C++ Language Extensions".
#pragma once

#include <algorithm>
#include <cmath>

#include "emulator/cuda_api.h"
#include "emulator/half.h"
#include "emulator/runtime.h"
#include "emulator/types.h"

#define __global__
#define __device__
#define __host__
#define __shared__ static  // blocks run one after another
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;
using std::max;
using std::min;

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
    tdc::emulator::allow_dynamic_shared(reinterpret_cast<const void*>(kernel),
                                        static_cast<std::size_t>(bytes));
    return cudaSuccess;
}

struct cudaFuncAttributes {
    int ptxVersion;
};
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel* kernel) {
    tdc::emulator::load(reinterpret_cast<const void*>(kernel));
    attributes->ptxVersion = 90;  // as tdc::kArchitecture
    return cudaSuccess;
}

inline void __syncthreads(tdc::emulator::Site site = tdc::emulator::Site::here()) {
    tdc::emulator::block_barrier(site);
}
inline void __syncwarp(unsigned mask = ~0u,
                       tdc::emulator::Site site = tdc::emulator::Site::here()) {
    tdc::emulator::warp_collective(mask, "__syncwarp", nullptr, nullptr, site);
}
inline void __threadfence() {}  // memory is in program order
inline void __threadfence_block() {}

namespace tdc::emulator {

// Gives this lane the `value` of lane `source`, which must be in the mask.
template <class T>
T shuffle(uint32_t mask, T value, unsigned source, const char* name, Site site) {
    struct Operands {
        T in, out;
        unsigned source;
    } mine{value, value, source};
    const Meet meet = [](void* const(&lanes)[32], uint32_t present) {
        for (void* lane : lanes) {
            if (!lane) continue;
            auto* operands = static_cast<Operands*>(lane);
            if (!(present >> operands->source & 1))
                fail("shuffle from lane %u, which is not in the mask %08x", operands->source,
                     present);
            operands->out = static_cast<Operands*>(lanes[operands->source])->in;
        }
    };
    warp_collective(mask, name, &mine, meet, site);
    return mine.out;
}

// The first lane of the running lane's segment of `width` lanes.
inline unsigned segment(int width) { return lane() & ~(static_cast<unsigned>(width) - 1u); }

}  // namespace tdc::emulator

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              tdc::emulator::Site site = tdc::emulator::Site::here()) {
    const unsigned from = tdc::emulator::segment(width) + unsigned(source) % unsigned(width);
    return tdc::emulator::shuffle(mask, value, from, "__shfl_sync", site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  tdc::emulator::Site site = tdc::emulator::Site::here()) {
    // Unlike the others, this one may read from an earlier segment (PTX ISA, "shfl.sync", .bfly).
    const unsigned self = tdc::emulator::lane(), from = self ^ unsigned(bits);
    const bool inside = from < tdc::emulator::segment(width) + unsigned(width);
    return tdc::emulator::shuffle(mask, value, inside ? from : self, "__shfl_xor_sync", site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 tdc::emulator::Site site = tdc::emulator::Site::here()) {
    const unsigned self = tdc::emulator::lane();
    const bool inside = self >= tdc::emulator::segment(width) + delta;
    return tdc::emulator::shuffle(mask, value, inside ? self - delta : self, "__shfl_up_sync",
                                  site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   tdc::emulator::Site site = tdc::emulator::Site::here()) {
    const unsigned self = tdc::emulator::lane();
    const bool inside = self + delta < tdc::emulator::segment(width) + unsigned(width);
    return tdc::emulator::shuffle(mask, value, inside ? self + delta : self, "__shfl_down_sync",
                                  site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              tdc::emulator::Site site = tdc::emulator::Site::here()) {
    struct Operands {
        bool in;
        unsigned out;
    } mine{predicate != 0, 0};
    const tdc::emulator::Meet meet = [](void* const(&lanes)[32], uint32_t) {
        unsigned ballot = 0;
        for (unsigned i = 0; i < 32; ++i)
            if (lanes[i] && static_cast<Operands*>(lanes[i])->in) ballot |= 1u << i;
        for (void* lane : lanes)
            if (lane) static_cast<Operands*>(lane)->out = ballot;
    };
    tdc::emulator::warp_collective(mask, "__ballot_sync", &mine, meet, site);
    return mine.out;
}

// Fibers change only where threads meet, so a plain addition is atomic.
template <class T>
__attribute__((noinline, no_sanitize_thread)) T atomicAdd(T* address, T value) {
    tdc::emulator::note(tdc::emulator::Access::kAtomic, address, sizeof(T),
                        __builtin_return_address(0));
    const T old = *address;
    *address = old + value;
    return old;
}

template <class T>
T __ldg(const T* address) {
    return *address;
}
template <class T>
T __ldcg(const T* address) {
    return *address;
}
inline unsigned __float_as_uint(float value) { return tdc::emulator::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return tdc::emulator::bit_cast<float>(bits); }
