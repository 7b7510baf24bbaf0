"""Float16 inputs and outputs: what is computed in between stays as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tdc_deploy.graph.half import to_half
from tdc_deploy.graph.half_io import to_half_io
from tdc_deploy.graph.network import model_of
from tests.builders import small_cnn
from tests.graph.test_padding import fused_net
from tests.helpers import Array, Net, feeds_of, network, run


def rewritten(model: onnx.ModelProto, precision: str = "fp16") -> onnx.ModelProto:
    made = network(model)
    if precision == "fp16":
        to_half(made)
    to_half_io(made)
    result = model_of(made)
    onnx.checker.check_model(result, full_check=True)
    return result


def half(feeds: dict[str, Array]) -> dict[str, Array]:
    return {name: x.astype(np.float16) if x.dtype == np.float32 else x for name, x in feeds.items()}


def casts(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "Cast" for node in model.graph.node)


def io_types(model: onnx.ModelProto) -> dict[str, int]:
    values = (*model.graph.input, *model.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize(
    "source", [small_cnn(), model_of(fused_net((3, 10)))], ids=["cnn", "chain"]
)
def test_it_computes_the_same_of_what_float16_holds(
    source: onnx.ModelProto, precision: str
) -> None:
    feeds = half(feeds_of(source))
    before = network(source)
    if precision == "fp16":
        to_half(before)
    expected = run(model_of(before), {name: x.astype(np.float32) for name, x in feeds.items()})
    after = rewritten(source, precision)
    assert set(io_types(after)) == set(io_types(source))
    assert set(io_types(after).values()) == {TensorProto.FLOAT16}
    for mine, other in zip(run(after, feeds), expected, strict=True):
        assert mine.dtype == np.float16
        # Only the output is rounded, once.
        assert np.array_equal(mine, other.astype(np.float16))


def test_no_cast_is_left_where_the_network_computes_in_float16() -> None:
    net = Net(8, (9, 8))
    source = net.model(net.relu(net.conv("x", 4, name="c"), "r"))
    assert casts(rewritten(source)) == 0
    assert casts(rewritten(source, "fp32")) == 2


def test_an_input_that_is_also_read_in_float32() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 4]) for n in ("y", "z")]
    nodes = [
        helper.make_node("Relu", ["x"], ["y"], name="relu"),
        helper.make_node("Exp", ["x"], ["z"], name="exp"),  # stays float32
    ]
    graph = helper.make_graph(nodes, "g", [x], outputs)
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    after = rewritten(source)
    values = np.linspace(-2, 2, 16, dtype=np.float16).reshape(4, 4)
    y, z = run(after, {"x": values})
    assert np.array_equal(y, np.maximum(values, 0))
    assert np.array_equal(z, np.exp(values.astype(np.float32)).astype(np.float16))
    assert casts(after) == 2


def test_one_tensor_behind_two_outputs() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("y", "z")]
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], name="in", to=TensorProto.FLOAT16),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Cast", ["r"], ["y"], name="y", to=TensorProto.FLOAT),
        helper.make_node("Cast", ["r"], ["z"], name="z", to=TensorProto.FLOAT),
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, [4]) for n in ("h", "r")]
    graph = helper.make_graph(nodes, "g", [x], outputs, value_info=infos)
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    after = rewritten(source, "fp32")
    y, z = run(after, {"x": np.array([-1, 0, 1, 2], np.float16)})
    assert y.tolist() == z.tolist() == [0, 0, 1, 2]
    assert casts(after) == 2  # of z: to float32 and back


def test_other_types_stay() -> None:
    infos = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4]),
        helper.make_tensor_value_info("i", TensorProto.INT64, [2]),
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
    node = helper.make_node("Gather", ["x", "i"], ["y"], name="gather")
    graph = helper.make_graph([node], "g", infos, [y])
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    after = rewritten(source)
    assert io_types(after) == {
        "x": TensorProto.FLOAT16,
        "i": TensorProto.INT64,
        "y": TensorProto.FLOAT16,
    }
