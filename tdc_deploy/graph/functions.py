"""The operators TuckerConv and TuckerConvAdd: names, inputs, and the function bodies that define them.

The body is the operator's meaning. Every ONNX Runtime inlines it, so the file needs no custom library;
a backend with a kernel of that name replaces it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx
import onnx.parser

DOMAIN = "tdc"
VERSION = 1
TUCKER_CONV = "TuckerConv"
TUCKER_CONV_ADD = "TuckerConvAdd"
OPERATORS = (TUCKER_CONV, TUCKER_CONV_ADD)

# Position of each input; R is only there in TuckerConvAdd.
X, FIRST, FIRST_BIAS, CORE, CORE_BIAS, LAST, BIAS, R = range(8)

SLOPES = ("first_slope", "core_slope", "slope")

# Reshape with zeros ("copy this dimension") is alike in every opset, unlike Unsqueeze.
_BODY = """
<domain: "tdc", opset_import: ["" : {opset}]>
{name} <strides, pads, dilations, first_slope, core_slope, slope>
(X, first, first_bias, core, core_bias, last, bias{residual}) => (Y)
{{
    pointwise = Constant <value: tensor = int64[4] {{0, 0, 1, 1}}> ()
    first_kernel = Reshape (first, pointwise)
    reduced = Conv (X, first_kernel, first_bias)
    T1 = {first_slope} (reduced)
    core_kernel = Transpose <perm: ints = [2, 3, 0, 1]> (core)
    convolved = Conv <strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations>
        (T1, core_kernel, core_bias)
    T2 = {core_slope} (convolved)
    last_kernel = Reshape (last, pointwise)
    expanded = Conv (T2, last_kernel, bias)
    {add}
    Y = {slope} ({before_activation})
}}
"""


def function_body(
    name: str, opset: int, slopes: Mapping[str, Collection[float]]
) -> onnx.FunctionProto:
    """The model-local function that defines operator `name` for a model of default opset `opset`.

    `slopes` holds the values that each slope attribute has in the model. Where there is only one, the
    body names the activation itself: ONNX Runtime fuses a Relu after an Add into the convolution, but
    not a LeakyRelu of slope 0 (7% of a Tucker ResNet-18's time). Else it is a LeakyRelu whose slope is
    the attribute, which serves for every activation (1: none, 0: ReLU) without a branch.
    """
    with_residual = name == TUCKER_CONV_ADD
    text = _BODY.format(
        opset=opset,
        name=name,
        residual=", R" if with_residual else "",
        add="summed = Add (expanded, R)" if with_residual else "",
        before_activation="summed" if with_residual else "expanded",
        **{slope: _activation(slope, set(slopes[slope])) for slope in SLOPES},
    )
    return onnx.parser.parse_function(text)


def _activation(attribute: str, values: set[float]) -> str:
    if values == {0.0}:
        return "Relu"
    if values == {1.0}:
        return "Identity"
    return f"LeakyRelu <alpha: float = @{attribute}>"
