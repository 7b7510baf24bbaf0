"""The Q/DQ form for TensorRT: where it stands, and what it computes, which ONNX Runtime runs too."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from tdc_calibration.calibrators import Range, ranges_of
from tdc_calibration.histograms import activation_names, collect
from tdc_calibration.int8_engine import layer_in_int8, quantise_for_tensorrt

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import model_of
from tdc_deploy.profiling.layers import layer_model
from tdc_deploy.samples import Samples
from tdc_deploy.types import Candidate, Ranks
from tests.helpers import Net, chain, conv64, conv_net, network, relative, run
from tests.ranks.tables import conv_layer

ROUNDING = 1e-5
"""float32 sums of some hundred products, against float64."""


def inputs(count: int = 8, channels: int = 8) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, channels, 9, 8), np.float32)


def symmetric(model: onnx.ModelProto, x: np.ndarray) -> dict[str, Range]:
    made = network(model)
    found = collect(made, activation_names(made), Samples({"x": x}, 1), OnnxRuntimeBackend(1))
    return ranges_of(found, "minmax", symmetric=True)


def quantised(model: onnx.ModelProto, x: np.ndarray, *keep: str) -> onnx.ModelProto:
    made = model_of(quantise_for_tensorrt(network(model), symmetric(model, x), keep))
    onnx.checker.check_model(made, full_check=True)
    return made


def held(step: np.ndarray) -> np.ndarray:
    """Steps as float16 holds them, rounded up."""
    nearest = step.astype(np.float16)
    above = np.nextafter(nearest, np.float16(np.inf))
    return np.where(nearest >= step, nearest, above).astype(np.float64)


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


def is_rounded(model: onnx.ModelProto, name: str) -> bool:
    made = producers(model)
    if name not in made or made[name].op_type != "DequantizeLinear":
        return False
    return made[made[name].input[0]].op_type == "QuantizeLinear"


def test_one_layer_against_float64() -> None:
    """Input and weights on int8's levels, all else exact."""
    net = Net(8, (9, 8))
    model = net.model(net.conv("x", 6, (3, 3), name="c", bias=True, pads=(1, 1, 1, 1)))
    x = inputs()
    made = quantised(model, x)
    step = held(np.abs(x).max() / 127)
    rounded_x = np.clip(np.rint(x.astype(np.float64) / step), -128, 127) * step
    weight = net.weights["c.w"].astype(np.float64)
    steps = held(np.abs(weight).reshape(6, -1).max(1) / 127)[:, None, None, None]
    reference = conv64(
        rounded_x, np.rint(weight / steps) * steps, net.weights["c.b"], pads=(1, 1, 1, 1)
    )
    found = np.concatenate([run(made, {"x": row[None]})[0] for row in x])
    # x is divided in float32, so that a value halfway between two levels may go to the other.
    assert relative(found, reference) <= ROUNDING + 1e-4


def test_where_it_stands_in_a_residual_network() -> None:
    model = conv_net()
    x = np.random.default_rng(0).standard_normal((8, 3, 12, 12), np.float32)
    made = quantised(model, x)
    nodes = {node.name: node for node in made.graph.node}
    for name in ("stem", "block.a", "block.b", "down", "narrow"):
        assert is_rounded(made, nodes[name].input[0])
        assert is_rounded(made, nodes[name].input[1])
    initializers = {tensor.name for tensor in made.graph.initializer}
    convs = [node for node in made.graph.node if node.op_type == "Conv"]
    assert all(set(node.input[2:]) <= initializers for node in convs)  # biases as they are
    # The addition takes the convolution's output as it is, and the shortcut rounded.
    assert [is_rounded(made, name) for name in nodes["block.add"].input] == [False, True]
    # The shortcut and the block's first convolution share one pair.
    assert nodes["block.add"].input[1] == nodes["block.a"].input[0]
    # Nothing behind a convolution is rounded before its activation.
    made_by = producers(made)
    for node in made.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in made_by:
            assert made_by[node.input[0]].op_type == "Relu"
    counts = Counter(node.op_type for node in made.graph.node)
    assert counts["QuantizeLinear"] == counts["DequantizeLinear"] == 2 * 5


def test_weights_have_a_scale_for_each_output_channel() -> None:
    made = quantised(
        conv_net(), np.random.default_rng(0).standard_normal((4, 3, 12, 12), np.float32)
    )
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    original = {t.name: onnx.numpy_helper.to_array(t) for t in conv_net().graph.initializer}
    found = [n for n in made.graph.node if n.op_type == "QuantizeLinear" and n.input[0] in stored]
    assert len(found) == 5
    for node in found:
        weight, scale, zero = (stored[name] for name in node.input)
        assert (weight == original[node.input[0]]).all()
        assert (scale == held(np.abs(weight).reshape(len(weight), -1).max(1) / 127)).all()
        assert zero.dtype == np.int8
        assert not zero.any()
        assert node.attribute[0].name == "axis"
        assert node.attribute[0].i == 0


def test_a_chain_stays_three_convolutions_each_quantised() -> None:
    net = Net(8, (9, 8))
    model = net.model(chain(net, "x", "t", ranks=(4, 4)))
    made = quantised(model, inputs())
    convs = [node for node in made.graph.node if node.op_type == "Conv"]
    assert len(convs) == 3
    assert all(is_rounded(made, name) for node in convs for name in node.input[:2])
    x = inputs(1)
    # Three roundings of half a step in 127 each, of values and weights.
    assert 1e-4 <= relative(run(made, {"x": x})[0], run(model, {"x": x})[0]) <= 0.05


def test_kept_convolutions_are_untouched() -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 12, 12), np.float32)
    made = quantised(conv_net(), x, "block.b", "stem")
    nodes = {node.name: node for node in made.graph.node}
    for name in ("block.b", "stem"):
        assert not any(is_rounded(made, value) for value in nodes[name].input)
    # Then nothing is gained by a rounded shortcut either.
    assert not any(is_rounded(made, value) for value in nodes["block.add"].input)


def test_the_network_that_came_in_is_not_touched() -> None:
    model = conv_net()
    x = np.random.default_rng(0).standard_normal((4, 3, 12, 12), np.float32)
    made = network(model)
    before = model_of(made.copy()).SerializeToString()
    quantise_for_tensorrt(made, symmetric(model, x))
    assert model_of(made).SerializeToString() == before


def test_an_old_opset_is_refused() -> None:
    with pytest.raises(TdcError, match="opset 11"):
        quantise_for_tensorrt(network(conv_net(opset=11)), {})


@pytest.mark.parametrize("largest", [1e-9, 1e-6, 1e-4, 1e-2, 1.0, 300.0])
def test_scales_are_numbers_that_float16_holds(largest: float) -> None:
    """A scale of 0 would divide by it; one below the range would clip."""
    net = Net(8, (9, 8))
    model = net.model(net.conv("x", 6, (3, 3), name="c"))
    (tensor,) = (t for t in model.graph.initializer if t.name == "c.w")
    values = onnx.numpy_helper.to_array(tensor)
    values = (values * (largest / np.abs(values).max())).astype(np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, "c.w"))
    made = quantised(model, inputs())
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    scale = scales["c.w/scale"]
    assert (scale.astype(np.float16) == scale).all()
    assert (scale >= 2.0**-17).all()
    assert (127 * scale >= np.abs(values).reshape(6, -1).max(1)).all()


def test_a_layer_alone_goes_from_8_bits_to_8_bits() -> None:
    candidate = Candidate("tucker2", Ranks(16, 24), precision="int8")
    made = layer_in_int8(layer_model(conv_layer(), candidate))
    onnx.checker.check_model(made, full_check=True)
    ends = (*made.graph.input, *made.graph.output)
    assert [v.type.tensor_type.elem_type for v in ends] == [onnx.TensorProto.INT8] * 2
    convs = [node for node in made.graph.node if node.op_type == "Conv"]
    assert len(convs) == 3
    assert all(is_dequantised(made, name) for node in convs for name in node.input[:2])
    x = np.random.default_rng(0).integers(-127, 128, (1, 64, 14, 14), np.int8)
    (y,) = run(made, {made.graph.input[0].name: x})
    assert y.dtype == np.int8
    assert y.std() > 1


def is_dequantised(model: onnx.ModelProto, name: str) -> bool:
    return producers(model)[name].op_type == "DequantizeLinear"
