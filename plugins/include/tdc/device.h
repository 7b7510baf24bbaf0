// What a kernel may use of the device, and the only header that knows which compiler reads it.
//
// nvcc turns these operations into PTX (compute capability 8.0 or later); any other compiler gets
// the emulator (plugins/emulator), which runs the same kernel on a CPU. Kernel code includes this
// header and nothing of CUDA. Its own names are in namespace tdc; the CUDA names that a kernel may
// use beside them (threadIdx, __syncthreads, __shfl_xor_sync, atomicAdd, __half, ...) are those in
// emulator/cuda.h and emulator/half.h.
//
//   TDC_DEVICE                        a device function, always inlined
//   TDC_DYNAMIC_SHARED(type, name)    type* name: the dynamic shared memory, 128-byte aligned
//   TDC_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
//                                     the launch's own cudaError_t; a template of two or more
//                                     parameters goes in parentheses
//   TDC_LAUNCH_CLUSTER(kernel, cluster, grid, ...)
//                                     the same with clusters of `cluster` blocks along x
#pragma once

#include <cstdint>
#include <utility>

#include "tdc/cuda_api.h"

#ifdef __CUDACC__

#include <cuda_fp16.h>
#include <cuda_runtime.h>

// Launches of clusters came with CUDA 11.8; JetPack 5 has 11.4.
#ifndef TDC_CLUSTER_LAUNCHES
#define TDC_CLUSTER_LAUNCHES (CUDART_VERSION >= 11080)
#endif
#if !TDC_CLUSTER_LAUNCHES
#include <tuple>
#endif

#define TDC_DEVICE __device__ __forceinline__
#define TDC_DYNAMIC_SHARED(type, name)                                 \
    extern __shared__ __align__(128) unsigned char tdc_shared_bytes[]; \
    type* const name = reinterpret_cast<type*>(tdc_shared_bytes)
#define TDC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    ::tdc::launch_kernel(kernel, 1, grid, block, shared_bytes, stream, __VA_ARGS__)
#define TDC_LAUNCH_CLUSTER(kernel, cluster, grid, block, shared_bytes, stream, ...) \
    ::tdc::launch_kernel(kernel, cluster, grid, block, shared_bytes, stream, __VA_ARGS__)
#define TDC_SITE
#define TDC_ONLY_SITE

#else

#include "emulator/async_copy.h"
#include "emulator/cuda.h"
#include "emulator/tensor_core.h"

#define TDC_DEVICE inline
#define TDC_DYNAMIC_SHARED(type, name) \
    type* const name = static_cast<type*>(::tdc::emulator::dynamic_shared())
#define TDC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                         \
    ::tdc::emulator::launch({#kernel, grid, block, static_cast<std::size_t>(shared_bytes), \
                             static_cast<cudaStream_t>(stream)},                           \
                            kernel, __VA_ARGS__)
#define TDC_LAUNCH_CLUSTER(kernel, cluster, grid, block, shared_bytes, stream, ...)        \
    ::tdc::emulator::launch({#kernel, grid, block, static_cast<std::size_t>(shared_bytes), \
                             static_cast<cudaStream_t>(stream), cluster},                  \
                            kernel, __VA_ARGS__)
// The kernel's file and line, for the emulator's diagnoses.
#define TDC_ONLY_SITE ::tdc::emulator::Site site = ::tdc::emulator::Site::here()
#define TDC_SITE , TDC_ONLY_SITE

#endif

namespace tdc {

// 10 * the compute capability that device code is compiled for. A kernel leaves out, by if
// constexpr, what an older one has not: cp.async, ldmatrix and mma need 80, clusters 90.
#ifdef __CUDA_ARCH__
constexpr int kArchitecture = __CUDA_ARCH__ / 10;
#else
constexpr int kArchitecture = 90;
#endif

#ifdef __CUDACC__
// The 32-bit address that PTX wants for shared memory.
TDC_DEVICE uint32_t shared_address(const void* shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Unlike <<<>>> it tells its own failures from earlier ones.
template <class... Parameters, class... Arguments>
cudaError_t launch_kernel(void (*kernel)(Parameters...), unsigned cluster, dim3 grid, dim3 block,
                          std::size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
#if TDC_CLUSTER_LAUNCHES
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = cluster;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = cluster > 1 ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
#else
    if (cluster > 1) return cudaErrorNotSupported;
    std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
    return std::apply(
        [&](auto&... value) {
            void* pointers[] = {&value..., nullptr};
            return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers,
                                    shared_bytes, stream);
        },
        values);
#endif
}
#endif

// Starts copying 16 bytes from global to shared memory, both 16-byte aligned. Only the first
// `source_bytes` (0 to 16) are read; the rest of the 16 is written as zeros.
// PTX ISA, "cp.async", with .cg (cached in L2 only) and src-size.
TDC_DEVICE void cp_async_16(void* shared, const void* global, int source_bytes = 16 TDC_SITE) {
#ifdef __CUDACC__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(shared)), "l"(global), "r"(source_bytes)
                 : "memory");
#else
    emulator::async_copies().issue(shared, global, source_bytes, site);
#endif
}

// Makes one group of this thread's copies since the last commit. PTX ISA, "cp.async.commit_group".
TDC_DEVICE void cp_async_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" : : : "memory");
#else
    emulator::async_copies().commit();
#endif
}

// Waits until at most N of this thread's latest groups are unfinished. Other threads see the data
// only after a barrier that follows. PTX ISA, "cp.async.wait_group".
template <int N>
TDC_DEVICE void cp_async_wait() {
    static_assert(N >= 0, "the number of groups that may stay unfinished");
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
#else
    emulator::async_copies().wait(N);
#endif
}

// Loads four 8x8 matrices of 16-bit elements. Lane l gives the address of row l % 8 of matrix
// l / 8: 16 bytes, 16-byte aligned, in shared memory. Lane l receives in r[m] the elements
// (l / 4, l % 4 * 2) and (l / 4, l % 4 * 2 + 1) of matrix m, the first in the low half.
// All 32 lanes take part. PTX ISA, "ldmatrix", .m8n8.x4.
TDC_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row TDC_SITE) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
#else
    emulator::ldmatrix_x4(r, row, false, site);
#endif
}

// The same with each matrix transposed: lane l receives the elements (l % 4 * 2, l / 4) and
// (l % 4 * 2 + 1, l / 4). PTX ISA, "ldmatrix", .trans.
TDC_DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row TDC_SITE) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
#else
    emulator::ldmatrix_x4(r, row, true, site);
#endif
}

// d += a * b with a 16x16 and b 16x8 in fp16, d 16x8 in fp32. With g = lane / 4, t = lane % 4, two
// fp16 in a register and the lower column (of b: row) in its low half:
//   a[0..3]  rows g, g + 8, g, g + 8; columns 2t and 2t + 1, in a[2] and a[3] plus 8
//   b0, b1   rows 2t and 2t + 1, in b1 plus 8; column g
//   d[0..3]  row g, g, g + 8, g + 8; column 2t, 2t + 1, 2t, 2t + 1
// All 32 lanes take part. PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".
TDC_DEVICE void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                 uint32_t b1 TDC_SITE) {
#ifdef __CUDACC__
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    emulator::mma_m16n8k16_f16(d, a, b0, b1, site);
#endif
}

// d += a * b with a 16x8 and b 8x8 in tf32 (bits from to_tf32), d 16x8 in fp32. With g = lane / 4,
// t = lane % 4:
//   a[0..3]  row g, g + 8, g, g + 8; column t, t, t + 4, t + 4
//   b0, b1   row t, t + 4; column g
//   d[0..3]  as for mma_m16n8k16_f16
// All 32 lanes take part. PTX ISA, "Matrix Fragments for mma.m16n8k8", .tf32.
TDC_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                 uint32_t b1 TDC_SITE) {
#ifdef __CUDACC__
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    emulator::mma_m16n8k8_tf32(d, a, b0, b1, site);
#endif
}

// The float's bits, its mantissa rounded to 10 bits: to nearest, ties away from zero.
// PTX ISA, "cvt", .rna.tf32.f32.
TDC_DEVICE uint32_t to_tf32(float value) {
#ifdef __CUDACC__
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
#else
    return emulator::round_to_tf32(value);
#endif
}

// Clusters, for compute capability 9.0 or later. Only dynamic shared memory may be shared.

// The block's place in its cluster. PTX ISA, "%cluster_ctarank".
TDC_DEVICE unsigned cluster_rank() {
#ifdef __CUDACC__
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
#else
    return emulator::cluster_rank();
#endif
}

// Waits for all threads of the cluster; what they wrote before is seen after.
// PTX ISA, "barrier.cluster".
TDC_DEVICE void cluster_sync(TDC_ONLY_SITE) {
#ifdef __CUDACC__
    asm volatile(
        "barrier.cluster.arrive.release.aligned;\n"
        "barrier.cluster.wait.acquire.aligned;"
        :
        :
        : "memory");
#else
    emulator::cluster_barrier(site);
#endif
}

// Where block `rank` of the cluster has what this block has at `own`, an address in dynamic shared
// memory. That block must have started and not ended: cluster_sync before the first use and after
// the last. PTX ISA, "mapa".
template <class T>
TDC_DEVICE T* cluster_shared(T* own, unsigned rank TDC_SITE) {
#ifdef __CUDACC__
    T* theirs;
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(theirs) : "l"(own), "r"(rank));
    return theirs;
#else
    return static_cast<T*>(emulator::cluster_shared(own, rank, site));
#endif
}

}  // namespace tdc

#undef TDC_SITE
#undef TDC_ONLY_SITE
