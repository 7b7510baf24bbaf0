// TensorRT's plugin interface (IPluginV3, majors 10 and 11) as far as the adapter and its tests
// touch it: enough to build the plugin where TensorRT's own headers are not installed.
//
// Written for this project after the public interface. What counts is the binary: the order of the
// virtual functions and the layout of the structs, which abi/check.py holds against NVIDIA's
// headers. Functions that nothing here calls keep their slot, as declarations.
#pragma once

#ifndef TDC_TENSORRT_MAJOR
#error "define TDC_TENSORRT_MAJOR: 10 or 11"
#elif TDC_TENSORRT_MAJOR != 10 && TDC_TENSORRT_MAJOR != 11
#error "TDC_TENSORRT_MAJOR must be 10 or 11"
#endif
#define NV_TENSORRT_MAJOR TDC_TENSORRT_MAJOR

#include "expressions.h"
#include "logger.h"
#include "plugin_v3.h"
#include "registry.h"
#include "types.h"
