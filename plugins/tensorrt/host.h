// The TensorRT that has loaded this library, found at run time: nothing of it is linked.
#pragma once

#include <NvInferRuntime.h>

namespace tdc::plugin {

// TensorRT's functions of this process, or null. Python loads TensorRT without making its symbols
// global, so they are also looked for in the library itself.
struct Host {
    nvinfer1::IPluginRegistry* (*registry)() noexcept;
    nvinfer1::ILogger* (*logger)() noexcept;
    int32_t (*version)() noexcept;
};
Host find_host();
// The same of the library that the code at `address` belongs to.
Host host_of(const void* address);

// Whether the host's interface is the one this library was built for; false, with a message on
// stderr, for another major: its logger and registry have other functions at the same place.
// A host that does not tell its version is trusted.
bool is_compatible(const Host& host);

}  // namespace tdc::plugin
