#include "tensorrt/log.h"

#include <atomic>
#include <cstdio>

namespace tdc::plugin {
namespace {

#if NV_TENSORRT_MAJOR != 8
std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};
#endif
std::atomic<nvinfer1::ILogger* (*)() noexcept> logger_function{nullptr};

nvinfer1::ILogger* find_logger() {
#if NV_TENSORRT_MAJOR != 8
    if (nvinfer1::ILoggerFinder* finder = logger_finder)
        if (nvinfer1::ILogger* logger = finder->findLogger()) return logger;
#endif
    nvinfer1::ILogger* (*const function)() noexcept = logger_function;
    return function ? function() : nullptr;
}

}  // namespace

void log(Severity severity, const std::string& message) noexcept {
    if (nvinfer1::ILogger* logger = find_logger())
        logger->log(severity, message.c_str());
    else
        std::fprintf(stderr, "%s\n", message.c_str());
}

#if NV_TENSORRT_MAJOR != 8
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept { logger_finder = finder; }
#endif

void set_logger_function(nvinfer1::ILogger* (*function)() noexcept) noexcept {
    logger_function = function;
}

}  // namespace tdc::plugin
