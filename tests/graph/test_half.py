"""Rewriting to float16: what is computed in it, what is not, and how close the result is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tdc_deploy.errors import TdcError
from tdc_deploy.graph.half import to_half
from tdc_deploy.graph.network import model_of
from tdc_deploy.graph.shapes import infer_types
from tests.builders import CHANNELS, images, small_cnn
from tests.graph.test_padding import fused_net
from tests.helpers import Array, Net, feeds_of, network, relative, run, run_float64

# float16 keeps 11 bits.
UNIT = 2.0**-11


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    made = network(model)
    assert to_half(made) == []
    return checked(model_of(made))


def checked(model: onnx.ModelProto) -> onnx.ModelProto:
    onnx.checker.check_model(model, full_check=True)
    return model


def types_of(model: onnx.ModelProto) -> dict[str, list[np.dtype[Any]]]:
    """Node name → the types of its outputs."""
    types = infer_types(network(model))
    return {node.name: [types[name] for name in node.output] for node in model.graph.node}


def casts(model: onnx.ModelProto) -> list[int]:
    """What the Casts cast to, in graph order."""
    return [n.attribute[0].i for n in model.graph.node if n.op_type == "Cast"]


def half_nodes(model: onnx.ModelProto) -> int:
    return sum(np.dtype(np.float16) in types for types in types_of(model).values())


def tolerance(model: onnx.ModelProto) -> float:
    """Each node that computes in float16 rounds its inputs, its weights and its output by half a UNIT at
    most; convolution and ReLU carry a relative error of the norm on without adding to it, but a sum of
    terms that cancel may double it. A fused operator rounds its inner tensors too: three for one.
    """
    fused = sum(node.domain == "tdc" for node in model.graph.node)
    return float(2 * 3 * UNIT / 2 * (half_nodes(model) + 2 * fused))


def assert_close(
    model: onnx.ModelProto, before: onnx.ModelProto, feeds: Mapping[str, Array]
) -> None:
    exact = run_float64(before, feeds)
    for value, reference in zip(run(model, feeds), exact, strict=True):
        assert value.dtype == np.float32
        assert relative(value, reference) <= tolerance(model)
    # It was computed in float16: in float32 it would be closer.
    assert relative(run(model, feeds)[0], exact[0]) > 1e-5


def test_a_cnn_computes_in_fp16_between_fp32_inputs_and_outputs() -> None:
    before = small_cnn(two_outputs=True)
    after = halved(before)
    types = types_of(after)
    for name in ("conv1", "relu1", "conv2", "conv3", "sum", "logits"):
        assert types[name] == [np.dtype(np.float16)], name
    assert types["pooled"] == [np.dtype(np.float32)]
    assert [v.name for v in after.graph.input] == ["image"]
    assert [v.name for v in after.graph.output] == ["logits", "features"]
    assert {v.type.tensor_type.elem_type for v in [*after.graph.input, *after.graph.output]} == {
        TensorProto.FLOAT
    }
    weights = {t.data_type for t in after.graph.initializer if len(t.dims) > 1}
    assert weights == {TensorProto.FLOAT16}
    # image → half, into the pooling and out of it, logits.
    assert sorted(casts(after)) == sorted(
        [TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT]
    )
    assert_close(after, before, {"image": images(1)})


def test_an_open_batch_stays_open() -> None:
    after = halved(small_cnn(batch="n", two_inputs=True))
    assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    feeds = {"image": images(3), "shift": np.zeros((3, CHANNELS[1], 1, 1), np.float32)}
    assert run(after, feeds)[0].shape == (3, 10)


@pytest.mark.parametrize("inner", [(1, 1), (0, 0), (0.25, 0.1)])
def test_fused_operators_and_their_bodies_compute_in_fp16(inner: tuple[int, int]) -> None:
    made = fused_net((8, 16), inner)
    before = model_of(made)
    assert to_half(made) == []
    after = checked(model_of(made))
    for node in after.graph.node:
        if node.domain == "tdc":
            stored = {t.name: t.data_type for t in after.graph.initializer}
            assert {stored[name] for name in node.input[1:7]} == {TensorProto.FLOAT16}
            assert types_of(after)[node.name] == [np.dtype(np.float16)]
    assert_close(after, before, feeds_of(before))


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("Softmax", {"axis": 1}),
        ("Exp", {}),
        ("ReduceMean", {"axes": [2, 3], "keepdims": 1}),
        ("GlobalAveragePool", {}),
        ("AveragePool", {"kernel_shape": [9, 8]}),
        ("Sqrt", {}),
        ("Erf", {}),
    ],
)
def test_sensitive_nodes_stay_fp32_between_casts(kind: str, attributes: dict[str, Any]) -> None:
    net = Net(8, (9, 8))
    y = net.conv("x", 8, name="c")
    y = net.node(kind, [net.relu(y, "r")], "sensitive", **attributes)
    after = halved(net.model(net.conv(y, 4, name="d")))
    types = types_of(after)
    assert types["c"] == types["d"] == [np.dtype(np.float16)]
    assert types["sensitive"] == [np.dtype(np.float32)]
    assert len(casts(after)) == 4
    run(after, feeds_of(after))


def test_layer_normalisation_stays_fp32() -> None:
    net = Net(8, (9, 8))
    y = net.conv("x", 8, name="c")
    scale = net.weight("scale", np.ones(8, np.float32))
    y = net.node("LayerNormalization", [y, scale], "norm", axis=-1)
    after = halved(net.model(y))
    assert types_of(after)["norm"] == [np.dtype(np.float32)]
    run(after, feeds_of(after))


def test_what_moves_elements_keeps_the_type_it_gets_and_makes_no_casts() -> None:
    net = Net(8, (9, 8))
    y = net.node("Softmax", [net.conv("x", 8, name="c")], "soft", axis=1)
    y = net.node("Transpose", [y], "after", perm=[0, 2, 3, 1])
    z = net.node("Transpose", [net.conv("x", 8, name="d")], "half", perm=[0, 2, 3, 1])
    after = halved(net.model(y, net.relu(z, "relu")))
    types = types_of(after)
    assert types["after"] == [np.dtype(np.float32)]
    assert types["half"] == [np.dtype(np.float16)]
    # x once for both convolutions, and back for each output.
    assert casts(after).count(TensorProto.FLOAT16) == 1
    assert casts(after).count(TensorProto.FLOAT) == 2


def test_shapes_and_integers_are_left_alone() -> None:
    net = Net(8, (9, 8), batch="n")
    y = net.conv("x", 8, name="c")
    shape = net.node("Shape", [y], "shape")
    first = net.weight("first", np.array([0], np.int64))
    rest = net.weight("rest", np.array([-1], np.int64))
    batch = net.node("Gather", [shape, first], "batch", axis=0)
    y = net.node("Reshape", [y, net.node("Concat", [batch, rest], "target", axis=0)], "flat")
    after = halved(net.model(y))
    types = types_of(after)
    assert types["shape"] == types["batch"] == types["target"] == [np.dtype(np.int64)]
    assert types["flat"] == [np.dtype(np.float16)]
    # Shape reads c's own output, so that only the network's output is cast back.
    assert casts(after) == [TensorProto.FLOAT16, TensorProto.FLOAT]
    assert run(after, feeds_of(after))[0].shape == (1, 8 * 9 * 8)


def test_what_a_branch_captures_stays_fp32() -> None:
    net = Net(8, (9, 8))
    y = net.conv("x", 8, name="c")
    branches = {}
    for key, kind in (("then_branch", "Relu"), ("else_branch", "Neg")):
        out = helper.make_tensor_value_info(key, TensorProto.FLOAT, None)
        nodes = [helper.make_node(kind, [y], [key], name=key)]
        branches[key] = helper.make_graph(nodes, key, [], [out])
    condition = net.weight("condition", np.array(False))
    after = halved(net.model(net.node("If", [condition], "if", (8, 9, 8), **branches)))
    assert types_of(after)["c"] == [np.dtype(np.float16)]
    assert run(after, feeds_of(after))[0].dtype == np.float32


@pytest.mark.parametrize("value", [65505.0, -1e30])
def test_a_weight_beyond_the_range_is_an_error(value: float) -> None:
    net = Net(8, (9, 8))
    y = net.conv("x", 8, name="c")
    net.weights["c.w"][0, 0, 0, 0] = value
    with pytest.raises(TdcError, match=r"'c.w'.*holds (6.55e\+04|1e\+30)"):
        to_half(network(net.model(y)))


def test_a_bound_beyond_the_range_is_clamped_with_a_warning() -> None:
    net = Net(8, (9, 8))
    low = net.weight("low", np.array(-3e38, np.float32))
    y = net.node("Clip", [net.conv("x", 8, name="c"), low], "clip")
    made = network(net.model(y))
    assert len(to_half(made)) == 1
    clamped = [
        onnx.numpy_helper.to_array(t)
        for t in model_of(made).graph.initializer
        if t.name.startswith("low")
    ]
    assert [float(value) for value in clamped] == [-65504.0]
    run(model_of(made), feeds_of(net.model(y)))


def test_a_constant_that_both_types_read_is_kept_in_both() -> None:
    net = Net(8, (9, 8))
    half = net.weight("shared", np.full((1, 8, 1, 1), 0.1, np.float32))
    y = net.node("Add", [net.conv("x", 8, name="c"), half], "add")
    y = net.node("Div", [y, half], "div")
    after = halved(net.model(y))
    stored = {t.name: t.data_type for t in after.graph.initializer if t.name.startswith("shared")}
    assert sorted(stored.values()) == [TensorProto.FLOAT, TensorProto.FLOAT16]


@pytest.mark.parametrize(
    ("opset", "asked", "kind"),
    [
        (17, True, TensorProto.FLOAT),
        (19, True, TensorProto.FLOAT16),
        (19, False, TensorProto.FLOAT),
    ],
)
def test_qdq_takes_float16_where_asked_from_the_opset_that_knows_it(
    opset: int, asked: bool, kind: int
) -> None:
    net = Net(8, (9, 8), opset=opset)
    scale = net.weight("scale", np.float32(0.05))
    zero = net.weight("zero", np.int8(0))
    inside = net.node("QuantizeLinear", ["x", scale, zero], "q")
    y = net.node("DequantizeLinear", [inside, scale, zero], "dq", shape=(8, 9, 8))
    halving = network(net.model(net.conv(y, 4, (3, 3), name="c")))
    assert to_half(halving, quantising=asked) == []
    made = checked(model_of(halving))
    types = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    nodes = {node.name: node for node in made.graph.node}
    assert types[nodes["q"].input[1]] == types[nodes["dq"].input[1]] == kind
    assert types[nodes["c"].input[1]] == TensorProto.FLOAT16
