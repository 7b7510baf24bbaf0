// Messages to whoever uses TensorRT: its logger where there is one, else stderr.
#pragma once

#include <NvInferRuntime.h>

#include <exception>
#include <string>

namespace tdc::plugin {

using Severity = nvinfer1::ILogger::Severity;

void log(Severity severity, const std::string& message) noexcept;

// Where log finds the logger: what the loadLibrary of TensorRT 10 and 11 gives, and TensorRT's
// getLogger function.
#if NV_TENSORRT_MAJOR != 8
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;
#endif
void set_logger_function(nvinfer1::ILogger* (*function)() noexcept) noexcept;

// Runs what may throw on behalf of TensorRT, which takes no exceptions: logs, returns `failure`.
template <class Result, class Run>
Result guarded(const char* who, Result failure, Run run,
               Severity severity = Severity::kERROR) noexcept {
    try {
        return run();
    } catch (const std::exception& error) {
        log(severity, std::string(who) + ": " + error.what());
    } catch (...) {
        log(severity, std::string(who) + ": unknown error");
    }
    return failure;
}

}  // namespace tdc::plugin
