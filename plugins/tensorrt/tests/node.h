// A node of the network as every version of TensorRT shows it to a plugin.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <string>
#include <vector>

#include "layer_case.h"

namespace tdc::test {

// Attributes as the parser hands them to the creator.
class NodeFields {
  public:
    explicit NodeFields(std::vector<int> tactics = {});
    // Replaces the field, or adds it; `data` must outlive this object.
    NodeFields& set(nvinfer1::PluginField field);
    NodeFields& remove(const std::string& name);
    const nvinfer1::PluginFieldCollection* collection();

  private:
    std::vector<int> tactics_;
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

nvinfer1::Dims to_dims(const Shape& shape);

// Whether the tensor has X's format: X, R and Y.
inline bool has_x_format(int i) { return i == plugin::kX || i >= plugin::kR; }

// The problem's inputs and Y in the format.
std::vector<nvinfer1::PluginTensorDesc> describe_tensors(const LayerCase& problem, Format format);

// Shapes as expressions, X's n, h and w not constant, and the value of expressions made of them.
class Expressions {
  public:
    explicit Expressions(const std::vector<Shape>& inputs);
    Expressions(const Expressions&) = delete;
    Expressions& operator=(const Expressions&) = delete;
    ~Expressions();

    const nvinfer1::DimsExprs* inputs() const { return inputs_.data(); }
    nvinfer1::IExprBuilder& builder();
    // Y's sizes; -1 where M is not constant or another is.
    Shape evaluate(const nvinfer1::DimsExprs& y) const;

  private:
    struct Builder;
    std::unique_ptr<Builder> builder_;
    std::vector<nvinfer1::DimsExprs> inputs_;
};

}  // namespace tdc::test
