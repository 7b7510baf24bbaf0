// The logger that TensorRT lends to a plugin library. 8.5 has no ILoggerFinder; both classes
// changed in 11.0.
#pragma once

#include "types.h"

namespace nvinfer1 {

#if TDC_TENSORRT_MAJOR <= 10

class ILogger {
  public:
    enum class Severity : int32_t {
        kINTERNAL_ERROR = 0,
        kERROR = 1,
        kWARNING = 2,
        kINFO = 3,
        kVERBOSE = 4,
    };
    virtual void log(Severity severity, const AsciiChar* message) noexcept = 0;
    virtual ~ILogger() = default;
};

#if TDC_TENSORRT_MAJOR == 10
class ILoggerFinder {
  public:
    virtual ILogger* findLogger() = 0;

  protected:
    virtual ~ILoggerFinder() = default;
};
#endif

#else

namespace v_1_0 {

class ILogger : public IVersionedInterface {
  public:
    enum class Severity : int32_t {
        kINTERNAL_ERROR = 0,
        kERROR = 1,
        kWARNING = 2,
        kINFO = 3,
        kVERBOSE = 4,
    };
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"ILogger", 1, 0}; }
    virtual void log(Severity severity, const AsciiChar* message) noexcept = 0;
};

class ILoggerFinder : public IVersionedInterface {
  public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"ILoggerFinder", 1, 0}; }
    virtual ILogger* findLogger() = 0;

  protected:
    ~ILoggerFinder() override = default;
};

}  // namespace v_1_0

using v_1_0::ILogger;
using v_1_0::ILoggerFinder;

#endif

}  // namespace nvinfer1
