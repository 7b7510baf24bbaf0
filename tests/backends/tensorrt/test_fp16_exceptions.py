"""What stays float32 in fp16 engines, and how a TensorRT before strong typing is told of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from tdc_calibration.int8_engine import quantise_for_tensorrt

from tdc_deploy.backends.tensorrt.engine import hold_to_float32
from tdc_deploy.backends.tensorrt.prepare import Prepared, prepare
from tdc_deploy.graph.fuse import fuse
from tdc_deploy.graph.network import Network
from tdc_deploy.graph.opset import with_opset
from tdc_deploy.profiling.analytical.chips import find_device
from tests.fake_tensorrt import session_of, with_bodies
from tests.graph.test_padding import fused_net
from tests.helpers import Net, chain, chains_of, conv_net, feeds_of, network, relative, run

DEVICE = find_device("A100")
X = {"x": (1, 3, 12, 12)}


def weight_types(model: onnx.ModelProto) -> dict[str, int]:
    """Convolution → the type of its weight, as the file stores it."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}

    def of(name: str) -> int:
        return types[name] if name in types else of(made_by[name].input[0])

    return {node.name: of(node.input[1]) for node in model.graph.node if node.op_type == "Conv"}


def half(model: Network, *exact: str, major: int = 10, shapes: Any = None) -> Prepared:
    return prepare(model, shapes or X, DEVICE, "fp16", major, exact=exact)


def test_nodes_that_fp16_does_not_hold_stay_float32() -> None:
    made = half(network(conv_net()), "block.b", "nowhere")
    types = weight_types(made.model)
    assert {name for name, kind in types.items() if kind == TensorProto.FLOAT} == {"block.b"}
    assert made.exact == ("block.b",)
    assert made.precision == "fp16"
    assert "block.b stay float32" in made.warnings[0]


def test_where_nothing_is_left_it_is_the_float_network() -> None:
    model = conv_net()
    names = [node.name for node in network(model).graph.nodes]
    made = half(network(model), *names)
    assert made.precision == "fp32"
    assert "every layer with weights stays float32" in made.warnings[-1]
    assert set(weight_types(made.model).values()) == {TensorProto.FLOAT}


def test_of_a_fused_chain_the_part_that_overflows_is_taken_out() -> None:
    net = Net(8, (9, 8))
    made = network(net.model(chain(net, "x", "t", ranks=(4, 4))))
    chains = chains_of(made)
    core = chains[0].core.name
    fuse(made, chains, chains)
    shapes = {"x": (1, 8, 9, 8)}
    assert half(made, shapes=shapes).fused
    taken = half(made, core, shapes=shapes)
    assert taken.fused == ()
    types = weight_types(taken.model)
    assert {name for name, kind in types.items() if kind == TensorProto.FLOAT} == {core}
    assert len(types) == 3


def quantised(model: Network) -> Network:
    """Every convolution in INT8, in a range that holds all."""
    made = with_opset(model, 19)
    tensors = [*made.graph.inputs, *(t for node in made.graph.nodes for t in node.outputs)]
    return quantise_for_tensorrt(made, {t.name: (-8.0, 8.0) for t in tensors})


@pytest.mark.skipif(
    onnxruntime.__version__.startswith("1.23."),
    reason="stands for TensorRT by ONNX Runtime, whose 1.23 computes float16 Q/DQ otherwise",
)
def test_qdq_is_fp16_and_means_the_same() -> None:
    before = quantised(network(conv_net()))
    made = half(before)
    assert made.int8
    onnx.checker.check_model(made.model, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in made.model.graph.initializer}
    scales = {n.input[1] for n in made.model.graph.node if "izeLinear" in n.op_type}
    assert {types[name] for name in scales} == {TensorProto.FLOAT16}
    feeds = feeds_of(conv_net())
    exact = run(model_in_float(before), feeds)[0]
    (found,) = session_of(made.model.SerializeToString()).run(None, feeds)
    # float16's 2^-11 on values between layers, which may move one of 127 levels.
    assert relative(found, exact) <= 0.02


def model_in_float(made: Network) -> onnx.ModelProto:
    return prepare(made, X, DEVICE, "fp32", 10).model


def test_before_strong_typing_qdq_stays_float32() -> None:
    """The parser of 8 knows float32 scales, and fp16 is a permission there."""
    made = half(quantised(network(conv_net())), major=8)
    assert made.int8
    assert {t.data_type for t in made.model.graph.initializer} == {
        TensorProto.FLOAT,
        TensorProto.INT8,
    }
    fused = half(fused_net((3, 10)), shapes={"x": (1, 8, 9, 8)}, major=8)
    assert fused.fused
    run(with_bodies(fused.model), feeds_of(fused.model))


class FakeLayer:
    def __init__(self, name: str, output: str) -> None:
        self.name = name
        self.precision = "any"
        self.num_outputs = 1
        self.output = output

    def get_output_type(self, _: int) -> str:
        return self.output

    def set_output_type(self, _: int, dtype: str) -> None:
        self.output = dtype


def test_before_strong_typing_layers_are_held_to_float32() -> None:
    layers = [FakeLayer("a", "half"), FakeLayer("b", "half"), FakeLayer("c", "int32")]
    made = SimpleNamespace(num_layers=3, get_layer=layers.__getitem__)
    hold_to_float32(SimpleNamespace(float32="float", float16="half"), made, ("b", "c"))
    assert [layer.precision for layer in layers] == ["any", "float", "float"]
    assert [layer.output for layer in layers] == ["half", "float", "int32"]


@pytest.mark.parametrize("small", [True, False])
def test_scales_that_fp16_does_not_hold_stay_float32(small: bool) -> None:
    """Below its range a scale would be 0, and rounding a division by it."""
    before = quantised(network(conv_net()))
    (node,) = (
        n for n in before.graph.nodes if n.op == "QuantizeLinear" and n.inputs[0].name == "x"
    )
    if small:
        node.inputs[1].values = np.asarray(1e-9, np.float32)
    made = half(before).model
    types = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    (scale,) = (n.input[1] for n in made.graph.node if n.name == node.name)
    assert types[scale] == (TensorProto.FLOAT if small else TensorProto.FLOAT16)
