// The CUDA runtime's host interface, as far as launchers and their callers use it: CUDA's own, or
// the emulator's where the kernels are compiled for that (its CMake targets define TDC_EMULATED).
#pragma once

#ifdef TDC_EMULATED
#include "emulator/cuda_api.h"
#else
#include <cuda_runtime_api.h>
#endif

#ifdef __CUDACC__
#define TDC_HOST_DEVICE __host__ __device__
#else
#define TDC_HOST_DEVICE
#endif
