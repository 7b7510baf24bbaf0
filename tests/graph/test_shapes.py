"""The shapes that a network is planned at: given, declared, inferred."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper

from tdc_deploy.errors import TdcError
from tdc_deploy.graph.shapes import infer_shapes, input_shapes
from tests.helpers import FLOAT, Net, Shape, chain, conv_net, network


def graph_of(*shapes: list[int | str | None] | None) -> gs.Graph:
    """A graph whose inputs in0, in1, … have these shapes."""
    inputs = [
        helper.make_tensor_value_info(f"in{i}", FLOAT, shape) for i, shape in enumerate(shapes)
    ]
    output = helper.make_tensor_value_info("y", FLOAT, None)
    node = helper.make_node("Relu", ["in0"], ["y"])
    return gs.import_onnx(helper.make_model(helper.make_graph([node], "g", inputs, [output])))


def test_declared() -> None:
    assert input_shapes(graph_of([2, 3, 8, 9])) == {"in0": (2, 3, 8, 9)}


@pytest.mark.parametrize("batch", ["N", None], ids=str)
def test_open_batch_is_one(batch: str | None) -> None:
    assert input_shapes(graph_of([batch, 3, 8, 9])) == {"in0": (1, 3, 8, 9)}


def test_given_wins() -> None:
    graph = graph_of(["N", 3, "H", "W"], [2, 4])
    given: dict[str, Shape] = {"in0": (5, 3, 32, 48)}
    assert input_shapes(graph, given) == {"in0": (5, 3, 32, 48), "in1": (2, 4)}


def test_given_for_an_input_without_shape() -> None:
    assert input_shapes(graph_of(None), {"in0": (1, 3, 8, 8)}) == {"in0": (1, 3, 8, 8)}


def test_scalar_input() -> None:
    assert input_shapes(graph_of([])) == {"in0": ()}


def test_open_size() -> None:
    with pytest.raises(TdcError) as caught:
        input_shapes(graph_of(["N", 3, "height", 9]))
    assert "in0" in caught.value.received and "height" in caught.value.received
    assert "--shapes in0:1x3x?x9" in caught.value.fix


def test_no_shape_at_all() -> None:
    with pytest.raises(TdcError, match="'in0' has no shape") as caught:
        input_shapes(graph_of(None))
    assert "--shapes in0:" in caught.value.fix


def test_given_for_no_input() -> None:
    with pytest.raises(TdcError, match="'data', which is no input") as caught:
        input_shapes(graph_of([1, 3, 8, 8]), {"data": (1, 3, 8, 8)})
    assert "in0" in caught.value.expected


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 3, 8), (1, 3, 8, 8, 1), ()], ids=str)
def test_given_that_contradicts_the_file(shape: Shape) -> None:
    with pytest.raises(TdcError, match="for input 'in0'") as caught:
        input_shapes(graph_of(["N", 3, "H", "W"]), {"in0": shape})
    assert "Nx3xHxW" in caught.value.expected


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (1, 3, -8, 8)], ids=str)
def test_given_that_is_empty(shape: Shape) -> None:
    """No network runs on nothing, and no plan is made for it."""
    with pytest.raises(TdcError, match="in0"):
        input_shapes(graph_of(["N", 3, "H", "W"]), {"in0": shape})


def test_inferred() -> None:
    net = Net(8, (9, 8))
    made = network(net.model(net.head(chain(net, "x", "c", c_out=6, strides=(2, 1)))))
    shapes = infer_shapes(made, input_shapes(made.graph))
    assert shapes["x"] == (1, 8, 9, 8)
    assert shapes["c.first.out"] == (1, 3, 9, 8)
    assert shapes["c.last.out"] == (1, 6, 5, 8)
    assert shapes["head.out"] == (1, 5)


def test_inferred_at_given_sizes() -> None:
    model = conv_net(batch="N")
    made = network(model)
    before = model.SerializeToString(deterministic=True)
    shapes = infer_shapes(made, {"x": (7, 3, 24, 20)})
    assert shapes["stem.out"] == (7, 16, 24, 20)
    assert shapes["down.out"] == (7, 32, 12, 10)
    assert shapes["head.out"] == (7, 5)
    # What was found out is about this size, and is not written into the network.
    assert model.SerializeToString(deterministic=True) == before
    assert made.graph.inputs[0].shape[0] == "N"


def test_unknowable_shapes_are_left_out() -> None:
    net = Net(8)
    found = net.node("NonZero", ["x"], "where", (1, 1, 1))
    net.node("Cast", [found], "cast", to=FLOAT)
    made = network(net.model(net.relu("x", "act")))
    shapes = infer_shapes(made, input_shapes(made.graph))
    assert shapes["act.out"] == (1, 8, 9, 8)
    assert "where.out" not in shapes and "cast.out" not in shapes


def test_shapes_computed_in_the_graph() -> None:
    """Reshape to a shape made of stored numbers and of the input's own size."""
    net = Net(8, (9, 8), batch="N")
    shape = net.node("Shape", ["x"], "shape", (1, 1, 1))
    zero = net.weight("zero", np.array([0], np.int64))
    size = net.node("Gather", [shape, zero], "batch", (1, 1, 1))
    rest = net.weight("rest", np.array([8 * 9 * 8], np.int64))
    target = net.node("Concat", [size, rest], "target", (1, 1, 1), axis=0)
    made = network(net.model(net.node("Reshape", ["x", target], "flat", (1, 1, 1))))
    assert infer_shapes(made, {"x": (2, 8, 9, 8)})["flat.out"] == (2, 576)


def test_large_weights_are_not_needed() -> None:
    net = Net(64, (9, 8))
    made = network(net.model(net.conv("x", 64, (3, 3), name="big", bias=True)))
    before = [tensor.name for tensor in made.graph.inputs]
    assert infer_shapes(made, input_shapes(made.graph))["big.out"] == (1, 64, 7, 6)
    assert [tensor.name for tensor in made.graph.inputs] == before


def test_sizes_that_the_network_refuses() -> None:
    net = Net(8, (9, 8), batch="N")
    y = net.node("Reshape", ["x", net.weight("to", np.array([1, 576], np.int64))], "flat")
    weight = net.weight("w", np.ones((100, 3), np.float32))
    net.nodes.append(helper.make_node("MatMul", [y, weight], ["y"], name="classify"))
    graph = helper.make_graph(
        net.nodes,
        "g",
        net.inputs,
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [onnx.numpy_helper.from_array(values, name) for name, values in net.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = network(model)
    with pytest.raises(TdcError, match="does not fit input shapes x:1x8x9x8"):
        infer_shapes(made, input_shapes(made.graph))
