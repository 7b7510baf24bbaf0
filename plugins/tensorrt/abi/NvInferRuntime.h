// TensorRT's plugin interface as far as the adapters and their tests touch it (IPluginV3 of majors
// 10 and 11, IPluginV2DynamicExt of 8.5 and 8.6): enough to build the plugin where TensorRT's own
// headers are not installed.
//
// Written for this project after the public interface. What counts is the binary: the order of the
// virtual functions and the layout of the structs, which abi/check.py holds against NVIDIA's
// headers. Functions that nothing here calls keep their slot, as declarations.
#pragma once

#ifndef TDC_TENSORRT_MAJOR
#error "define TDC_TENSORRT_MAJOR: 8, 10 or 11"
#elif TDC_TENSORRT_MAJOR != 8 && TDC_TENSORRT_MAJOR != 10 && TDC_TENSORRT_MAJOR != 11
#error "TDC_TENSORRT_MAJOR must be 8, 10 or 11"
#endif
#define NV_TENSORRT_MAJOR TDC_TENSORRT_MAJOR
#if TDC_TENSORRT_MAJOR == 8  // the oldest that there is a plugin for
#define NV_TENSORRT_MINOR 5
#define NV_TENSORRT_PATCH 3
#endif

#include "expressions.h"
#include "logger.h"
#if TDC_TENSORRT_MAJOR == 8
#include "plugin_v2.h"
#else
#include "plugin_v3.h"
#endif
#include "registry.h"
#include "types.h"
