// Sizes that are not known when the network is made: expressions and their builder.
#pragma once

#include "types.h"

namespace nvinfer1 {

class IDimensionExpr;

enum class DimensionOperation : int32_t {
    kSUM = 0,
    kPROD = 1,
    kMAX = 2,
    kMIN = 3,
    kSUB = 4,
    kEQUAL = 5,
    kLESS = 6,
    kFLOOR_DIV = 7,
    kCEIL_DIV = 8,
};

namespace apiv {

class VRoot {
  public:
    virtual ~VRoot() noexcept = default;
};

class VDimensionExpr : public VRoot {
  public:
    virtual bool isConstant() const = 0;
    virtual SizeType getConstantValue() const = 0;
#if TDC_TENSORRT_MAJOR != 8
    virtual bool isSizeTensor() const = 0;
#endif
};

class VExprBuilder : public VRoot {
  public:
    virtual const IDimensionExpr* constant(SizeType value) = 0;
    virtual const IDimensionExpr* operation(DimensionOperation operation,
                                            const IDimensionExpr& first,
                                            const IDimensionExpr& second) = 0;
#if TDC_TENSORRT_MAJOR != 8
    virtual const IDimensionExpr* declareSizeTensor(int32_t output, const IDimensionExpr& usual,
                                                    const IDimensionExpr& upper) = 0;
#endif
};

}  // namespace apiv

class INoCopy {
  protected:
    INoCopy() = default;
    virtual ~INoCopy() = default;
    INoCopy(const INoCopy&) = delete;
    INoCopy& operator=(const INoCopy&) = delete;
};

class IDimensionExpr : public INoCopy {
  public:
    bool isConstant() const noexcept { return mImpl->isConstant(); }
    SizeType getConstantValue() const noexcept { return mImpl->getConstantValue(); }

  protected:
    apiv::VDimensionExpr* mImpl;
    ~IDimensionExpr() noexcept override = default;
};

class IExprBuilder : public INoCopy {
  public:
    const IDimensionExpr* constant(SizeType value) noexcept { return mImpl->constant(value); }
    const IDimensionExpr* operation(DimensionOperation operation, const IDimensionExpr& first,
                                    const IDimensionExpr& second) noexcept {
        return mImpl->operation(operation, first, second);
    }

  protected:
    apiv::VExprBuilder* mImpl;
    ~IExprBuilder() noexcept override = default;
};

class DimsExprs {
  public:
    int32_t nbDims;
    const IDimensionExpr* d[Dims::MAX_DIMS];
};

}  // namespace nvinfer1
