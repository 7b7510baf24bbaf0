// The registry of plugin creators. The functions of IPluginCreator lost their slots in 11.0; 8.5
// has no others.
#pragma once

#include "types.h"

namespace nvinfer1 {

class IErrorRecorder;
class IPluginCreator;
#if TDC_TENSORRT_MAJOR != 8
namespace v_1_0 {
class IPluginCreatorInterface;
}
using v_1_0::IPluginCreatorInterface;
#endif

class IPluginRegistry {
  public:
    using PluginLibraryHandle = void*;
#if TDC_TENSORRT_MAJOR <= 10
    virtual bool registerCreator(IPluginCreator& creator, const AsciiChar* space) noexcept = 0;
    virtual IPluginCreator* const* getPluginCreatorList(int32_t* count) const noexcept = 0;
    virtual IPluginCreator* getPluginCreator(const AsciiChar* name, const AsciiChar* version,
                                             const AsciiChar* space = "") noexcept = 0;
#endif

  protected:
    virtual ~IPluginRegistry() noexcept = default;

  public:
    virtual void setErrorRecorder(IErrorRecorder* recorder) noexcept = 0;
    virtual IErrorRecorder* getErrorRecorder() const noexcept = 0;
#if TDC_TENSORRT_MAJOR <= 10
    virtual bool deregisterCreator(const IPluginCreator& creator) noexcept = 0;
#endif
#if TDC_TENSORRT_MAJOR != 8
    virtual bool isParentSearchEnabled() const = 0;
    virtual void setParentSearchEnabled(bool enabled) = 0;
    virtual PluginLibraryHandle loadLibrary(const AsciiChar* path) noexcept = 0;
    virtual void deregisterLibrary(PluginLibraryHandle handle) noexcept = 0;
    virtual bool registerCreator(IPluginCreatorInterface& creator,
                                 const AsciiChar* space) noexcept = 0;
    virtual IPluginCreatorInterface* const* getAllCreators(int32_t* count) const noexcept = 0;
    virtual IPluginCreatorInterface* getCreator(const AsciiChar* name, const AsciiChar* version,
                                                const AsciiChar* space = "") noexcept = 0;
    virtual bool deregisterCreator(const IPluginCreatorInterface& creator) noexcept = 0;
#endif
};

}  // namespace nvinfer1
