"""The Q/DQ form: numerics, scales, and what ONNX Runtime makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from tdc_calibration.calibrators import Range, ranges_of
from tdc_calibration.histograms import activation_names, collect
from tdc_calibration.int8 import (
    Scheme,
    computed_in,
    quantise,
    schemes_of_machine,
    weighted_nodes,
    with_exact_weights,
)
from tdc_calibration.readback import operators_run, weighted_counts

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.samples import Samples
from tests.helpers import Net, conv64, conv_net, network, relative, run

UNSIGNED, SIGNED = Scheme("uint8"), Scheme("int8")
SEVEN_BITS = (Scheme("uint8", 7), Scheme("int8", 7))


def inputs(model: onnx.ModelProto, count: int = 8, seed: int = 0) -> NDArray[np.float32]:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, *shape[1:]), np.float32)


def min_max(model: onnx.ModelProto, x: NDArray[np.float32]) -> dict[str, Range]:
    made = network(model)
    found = collect(made, activation_names(made), Samples({"x": x}, 1), OnnxRuntimeBackend(1))
    return ranges_of(found, "minmax")


def quantised(model: onnx.ModelProto, scheme: Scheme = UNSIGNED, **options: Any) -> onnx.ModelProto:
    made = quantise(network(model), min_max(model, inputs(model)), scheme, **options)
    onnx.checker.check_model(made, full_check=True)
    return made


def one_conv(**options: Any) -> onnx.ModelProto:
    net = Net(8, (9, 8))
    return net.model(net.conv("x", 6, (3, 3), name="c", bias=True, pads=(1, 1, 1, 1), **options))


def stored(model: onnx.ModelProto) -> Mapping[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def weight_of(model: onnx.ModelProto, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """A node's weight as stored, and the scales of its channels."""
    node = next(n for n in model.graph.node if n.name == name)
    dequantise = next(n for n in model.graph.node if n.output[0] == node.input[1])
    held = stored(model)
    return held[dequantise.input[0]], held[dequantise.input[1]]


def fake_quantised(x: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """x on the 256 levels over [low, high] that hold 0, in float64."""
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    level = np.clip(np.rint(x.astype(np.float64) / scale) + zero, 0, 255)
    return np.asarray((level - zero) * scale, np.float64)


# With weights of 8 bits the sum is not exact on processors without VNNI or AMX.
@pytest.mark.parametrize("scheme", dict.fromkeys([*SEVEN_BITS, *schemes_of_machine()]), ids=str)
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)], ids=str)
def test_one_layer_against_float64(scheme: Scheme, strides: tuple[int, int]) -> None:
    """Its inputs and weights rounded as the scheme says, the sum exact, the output to the nearest level.

    So no element is further off than half a step of the output, and half a step of the bias, whose unit is
    the product of the input's and the weight's; the scales are float32.
    """
    model = one_conv(strides=strides)
    x = inputs(model)
    ranges = min_max(model, x)
    made = quantise(network(model), ranges, scheme)
    weight, bias = (stored(model)[name].astype(np.float64) for name in ("c.w", "c.b"))
    w_scale = np.abs(weight).reshape(6, -1).max(1) / {7: 64, 8: 127}[scheme.weight_bits]
    rounded = np.rint(weight / w_scale[:, None, None, None]) * w_scale[:, None, None, None]
    exact = conv64(fake_quantised(x, *ranges["x"]), rounded, bias, strides, (1, 1, 1, 1))
    found = np.concatenate([run(made, {"x": row[None]})[0] for row in x])
    low, high = ranges["c.out"]
    x_step, y_step = (ranges["x"][1] - ranges["x"][0]) / 255, (high - low) / 255
    inside = (exact >= low) & (exact <= high)
    tolerance = y_step / 2 + (x_step * w_scale / 2)[:, None, None] + 1e-4 * y_step
    difference = np.abs(found - exact)
    assert inside.mean() > 0.99
    assert (difference <= tolerance)[inside].all()
    assert (found >= low - y_step).all()
    assert (found <= high + y_step).all()


def test_every_output_channel_has_the_scale_of_its_own_weights() -> None:
    made = quantised(one_conv())
    weight, scale = weight_of(made, "c")
    original = stored(one_conv())["c.w"]
    assert weight.dtype == np.int8
    assert scale.shape == (6,)
    largest = np.abs(original).reshape(6, -1).max(1)
    assert relative(scale, largest / 127) <= 1e-6  # float32
    assert (np.abs(weight).reshape(6, -1).max(1) == 127).all()


def test_seven_bits_leave_room_for_two_products() -> None:
    weight, _ = weight_of(quantised(one_conv(), Scheme("uint8", 7)), "c")
    assert np.abs(weight).max() <= 64
    assert 2 * 255 * np.abs(weight.astype(int)).max() <= 2**15


@pytest.mark.parametrize(
    ("machine", "flags", "bits"),
    [
        ("x86_64", "fpu avx2 avx512_vnni", 8),
        ("AMD64", "avx2 avx_vnni", 8),
        ("x86_64", "avx2 avx512f", 7),
        ("aarch64", "", 8),
    ],
)
def test_weights_have_seven_bits_where_products_would_saturate(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, bits: int
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("tdc_deploy.cpu.flags", lambda: set(flags.split()))
    assert [s.weight_bits for s in schemes_of_machine()] == [bits, bits]
    assert [s.activations for s in schemes_of_machine()] == ["uint8", "int8"]


def test_every_layer_runs_in_8_bits_in_onnx_runtime() -> None:
    made = quantised(conv_net())
    operators = operators_run(made)
    assert weighted_counts(operators) == {"int8": 6, "float": 0}
    assert operators["QLinearConv"] == 5
    assert operators["QGemm"] == 1
    assert operators["QLinearAdd"] == 1
    assert operators["QLinearGlobalAveragePool"] == 1
    # Nothing is dequantised on the way.
    assert operators["QuantizeLinear"] == operators["DequantizeLinear"] == 1
    assert set(computed_in(made).values()) == {"int8"}


def test_a_float32_model_runs_none_in_8_bits() -> None:
    assert weighted_counts(operators_run(conv_net())) == {"int8": 0, "float": 6}
    assert set(computed_in(conv_net()).values()) == {"fp32"}


def test_pooling_and_concatenation_stay_in_8_bits() -> None:
    net = Net(8, (12, 12))
    a = net.relu(net.conv("x", 8, (3, 3), name="a", bias=True, pads=(1, 1, 1, 1)), "ra")
    b = net.node("MaxPool", [a], "b", (8, 6, 6), kernel_shape=[2, 2], strides=[2, 2])
    c = net.node("Concat", [b, b], "cat", (16, 6, 6), axis=1)
    made = quantised(net.model(net.head(net.conv(c, 4, (1, 1), name="d"))))
    operators = operators_run(made)
    assert weighted_counts(operators) == {"int8": 3, "float": 0}
    assert operators["QuantizeLinear"] == operators["DequantizeLinear"] == 1


@pytest.mark.parametrize("scheme", [UNSIGNED, SIGNED], ids=str)
def test_a_network_keeps_its_outputs(scheme: Scheme) -> None:
    """Rounding to 8 bits at eight places: a percent or two of the outputs' size."""
    model = conv_net()
    x = inputs(model)
    made = quantise(network(model), min_max(model, x), scheme)
    exact = np.concatenate([run(model, {"x": row[None]})[0] for row in x])
    found = np.concatenate([run(made, {"x": row[None]})[0] for row in x])
    assert 1e-4 <= relative(found, exact) <= 0.03


def test_layers_that_are_kept_are_as_they_were() -> None:
    made = quantised(conv_net(), keep=["stem", "block.b"])
    found = computed_in(made)
    assert {name for name, kind in found.items() if kind == "fp32"} == {"stem", "block.b"}
    held = stored(made)
    assert (held["stem.w"] == stored(conv_net())["stem.w"]).all()
    assert (held["block.b.w"] == stored(conv_net())["block.b.w"]).all()
    # Neither is the input rounded, which only the first of them reads.
    assert not any(
        "x" in node.input for node in made.graph.node if node.op_type == "QuantizeLinear"
    )


@pytest.mark.parametrize("kept", ["block.a", "block.b", "narrow"])
def test_a_layer_that_is_kept_between_others_is_exact(kept: str) -> None:
    """Between dequantised input and quantised output, ONNX Runtime quantises weights by itself."""
    made = quantised(conv_net(), keep=[kept])
    counts = weighted_counts(operators_run(made))
    assert counts == {"int8": 5, "float": 1}


def test_activations_alone_can_be_rounded() -> None:
    model = conv_net()
    made = network(model)
    exact = with_exact_weights(quantised(model), made)
    onnx.checker.check_model(exact, full_check=True)
    assert weighted_counts(operators_run(exact)) == {"int8": 0, "float": 6}
    held = {values.tobytes() for values in stored(exact).values()}
    assert {values.tobytes() for values in stored(model).values()} <= held
    x = inputs(model)[:1]
    assert 1e-4 <= relative(run(exact, {"x": x})[0], run(model, {"x": x})[0]) <= 0.03


def test_with_all_kept_nothing_is_rounded() -> None:
    model = conv_net()
    made = quantised(model, keep=weighted_nodes(network(model)))
    assert not {"QuantizeLinear", "DequantizeLinear"} & {n.op_type for n in made.graph.node}
    x = inputs(model)[:1]
    assert relative(run(made, {"x": x})[0], run(model, {"x": x})[0]) <= 1e-6  # float32 sums


def test_nodes_without_names_can_be_told_apart() -> None:
    model = conv_net()
    for node in model.graph.node:
        if node.op_type != "Conv":
            node.ClearField("name")
    made = network(model)
    names = weighted_nodes(made)
    assert len(set(names)) == len(names) == 6
    kept = quantise(made, min_max(model, inputs(model)), UNSIGNED, [names[-1]])
    assert [n for n, kind in computed_in(kept).items() if kind == "fp32"] == [names[-1]]


def test_constant_activations_are_taken() -> None:
    """A dead layer puts out zeros: its scale must not be zero."""
    model = one_conv()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name)
        )
    made = quantised(model)
    found = run(made, {"x": inputs(model)[:1]})[0]
    assert (found == 0).all()


def test_the_metadata_stays() -> None:
    net = Net(8, (9, 8))
    model = net.model(net.conv("x", 6, (3, 3), name="c"), metadata={"author": "somebody"})
    made = quantised(model)
    assert {entry.key: entry.value for entry in made.metadata_props} == {"author": "somebody"}


def test_an_old_opset_is_refused() -> None:
    model = conv_net(opset=11)
    with pytest.raises(TdcError, match="opset 11 in int8") as caught:
        quantised(model)
    assert "13" in caught.value.expected
