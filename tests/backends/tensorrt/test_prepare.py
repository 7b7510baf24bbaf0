"""The ONNX model that TensorRT's parser gets, without TensorRT."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tdc_deploy.backends.tensorrt.compatibility import least_device
from tdc_deploy.backends.tensorrt.prepare import Prepared, prepare
from tdc_deploy.errors import TdcError
from tdc_deploy.graph import functions as op
from tdc_deploy.graph.fuse import fuse
from tdc_deploy.graph.network import model_of
from tdc_deploy.profiling.analytical.chips import find_device
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.model import PRECISIONS, PrecisionName, tactics_attribute
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.analytical.tactics import decode
from tests.fake_tensorrt import with_bodies
from tests.graph.test_padding import fused_net
from tests.helpers import Net, chain, chains_of, feeds_of, network, relative, run, run_float64

DEVICE = find_device("A100")
SHAPES = {"x": (1, 8, 9, 8)}


def prepared(precision: PrecisionName = "fp32", major: int = 10) -> Prepared:
    return prepare(fused_net((3, 10)), SHAPES, DEVICE, precision, major)


def attribute(node: onnx.NodeProto, name: str) -> list[int]:
    return list(next(a for a in node.attribute if a.name == name).ints)


def test_bodies_and_metadata_are_gone_and_the_nodes_are_there() -> None:
    result = prepared()
    assert not result.model.functions
    assert not result.model.metadata_props
    nodes = [node for node in result.model.graph.node if node.domain == "tdc"]
    assert [node.op_type for node in nodes] == ["TuckerConv", "TuckerConvAdd"]
    assert tuple(node.name for node in nodes) == result.fused
    assert ("tdc", 1) in {(entry.domain, entry.version) for entry in result.model.opset_import}


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
def test_tactics_are_those_of_the_padded_layer(precision: PrecisionName) -> None:
    graph = prepared(precision).model.graph
    stored = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.domain == "tdc"]
    for node, residual in zip(nodes, (False, True), strict=True):
        shape = TuckerShape(1, 9, 8, 8, 8, 8, 16, residual=residual)
        tactics = attribute(node, "tactics")
        assert tactics == tactics_attribute(shape, DEVICE, precision)
        assert 0 < len(tactics) <= 16
        assert stored[node.input[op.CORE]] == [3, 3, 16, 8]
        assert {decode(number).arithmetic for number in tactics} <= set(PRECISIONS[precision])


def test_the_shapes_are_those_that_it_is_optimised_for() -> None:
    net = Net(8, (9, 8), batch="n")
    made = network(net.model(chain(net, "x", "a", ranks=(8, 8))))
    fuse(made, chains_of(made))
    large = prepare(made, {"x": (64, 8, 9, 8)}, DEVICE, "fp16", 10).model.graph
    tactics = tactics_attribute(TuckerShape(64, 9, 8, 8, 8, 8, 8), DEVICE, "fp16")
    assert attribute(large.node[1], "tactics") == tactics
    assert large.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


# fp16: eight nodes of three roundings of half of 2⁻¹¹ each, which cancellation may double.
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 24 * 2.0**-11)])
def test_it_computes_what_the_network_computed(precision: PrecisionName, tolerance: float) -> None:
    source = model_of(fused_net((3, 10)))
    feeds = feeds_of(source)
    after = run(with_bodies(prepared(precision).model), feeds)[0]
    assert relative(after, run_float64(source, feeds)[0]) <= tolerance


def test_the_network_that_came_in_is_left_alone() -> None:
    made = fused_net((3, 10))
    before = model_of(made)
    prepare(made, SHAPES, DEVICE, "fp16", 10)
    assert model_of(made) == before


def test_a_network_without_chains_needs_no_plugin() -> None:
    net = Net(8, (9, 8))
    result = prepare(network(net.model(net.conv("x", 4, name="c"))), SHAPES, DEVICE, "fp32", 10)
    assert result.fused == ()
    assert result.model.opset_import[0].version == 17


@pytest.mark.parametrize(("major", "ir_version"), [(8, 8), (10, 10), (11, 10)])
def test_the_file_is_of_a_version_that_the_parser_knows(major: int, ir_version: int) -> None:
    made = fused_net()
    made.ir_version = 10
    assert prepare(made, SHAPES, DEVICE, "fp32", major).model.ir_version == ir_version


def test_what_no_kernel_runs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdc_deploy.backends.tensorrt.prepare.tactics_attribute", lambda *_: [])
    with pytest.raises(TdcError, match=r"no kernel of the plugin runs 'a\.last' in fp16 on A100"):
        prepared("fp16")


def test_tactics_are_those_that_all_gpus_of_the_level_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Device] = []

    def no_tactics(*given: Any) -> list[int]:
        asked.append(given[3])
        return []

    monkeypatch.setattr("tdc_deploy.backends.tensorrt.prepare.tactics_attribute", no_tactics)
    with pytest.raises(TdcError, match=r"runs 'a\.last' in fp32 on every GPU from Ampere on"):
        prepare(fused_net(), SHAPES, DEVICE, "fp32", 10, hardware="ampere_plus")
    assert asked == [least_device(DEVICE, "ampere_plus")]


def test_a_shape_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdc_deploy.backends.tensorrt.fused_layers.infer_shapes", lambda *_: {})
    with pytest.raises(
        TdcError, match=r"the shape of 'x', the input of 'a\.last', does not follow"
    ):
        prepared()


def test_weights_beyond_fp16_are_refused() -> None:
    made = fused_net()
    node = next(node for node in made.graph.nodes if node.domain == "tdc")
    node.inputs[1].values = np.asarray(node.inputs[1].values) * np.float32(1e6)
    with pytest.raises(TdcError, match="largest number in fp16"):
        prepare(made, SHAPES, DEVICE, "fp16", 10)
