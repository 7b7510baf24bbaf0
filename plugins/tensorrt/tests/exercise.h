// Everything that TensorRT does with the creators' plugins, checked; both phases, every format and
// tactic, and what must be refused.
#pragma once

#include <NvInferRuntime.h>

namespace tdc::test {

// `creators` are those of TuckerConv and TuckerConvAdd.
void exercise(nvinfer1::IPluginCreatorV3One* const (&creators)[2]);

}  // namespace tdc::test
