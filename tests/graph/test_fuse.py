"""Fusing chains and un-fusing them: exact inverses that compute the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tdc_deploy.graph.chains import compressed_chains
from tdc_deploy.graph.fuse import fuse, mark_compressed, unfuse
from tdc_deploy.graph.network import CHAINS_KEY, Network, model_of, network_of
from tdc_deploy.graph.read import read_network
from tests.helpers import (
    Array,
    Net,
    Pads,
    Pair,
    activation,
    chain,
    chains_of,
    conv64,
    feeds_of,
    fixed,
    network,
    opened,
    relative,
    run,
    run_float64,
    save,
)

OPSETS = (11, 13, 17, 20)

# float32 (2⁻²⁴ = 6e-8 a rounding) over sums of at most 6·49 products, a few layers deep, some of whose
# terms cancel; against float64, or against another order of addition.
FLOAT32 = 1e-5


def assert_same_output(after: Array, before: Array, exactly: bool) -> None:
    """A fused operator's body is the chain's own nodes, which ONNX Runtime inlines and then optimises as
    it would the plain ones: the same bits. Only where an Add joins two convolutions it is free to merge
    the Add into either, which changes the order of addition.
    """
    if exactly:
        assert np.array_equal(after, before)
    assert relative(after, before) <= FLOAT32


@dataclass(frozen=True)
class ChainSpec:
    """One random chain: geometry, biases, activations, residual, and whether it shares its weights."""

    kernel: Pair
    strides: Pair
    dilations: Pair
    pads: Pads
    ranks: Pair
    c_out: int
    biases: tuple[bool, bool, bool]
    slopes: tuple[float, float, float]
    residual: str
    between: str
    shares: bool


slopes = st.sampled_from([1.0, 1.0, 0.0, 0.1, 0.25, -0.5])
small = st.integers(0, 3)

chain_specs = st.builds(
    ChainSpec,
    kernel=st.sampled_from([(3, 3), (1, 3), (3, 1), (5, 5), (7, 7), (1, 7), (5, 3)]),
    strides=st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2)]),
    dilations=st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1)]),
    pads=st.tuples(small, small, small, small),
    ranks=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    c_out=st.sampled_from([4, 7]),
    biases=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    slopes=st.tuples(slopes, slopes, slopes),
    residual=st.sampled_from(["", "left", "right"]),
    between=st.sampled_from(["", "conv", "sigmoid", "grouped"]),
    shares=st.booleans(),
)


def build(specs: list[ChainSpec], opset: int, seed: int) -> onnx.ModelProto:
    """A network of those chains, mixed with other nodes; every other tensor is also an output."""
    net = Net(5, (14, 13), opset=opset, seed=seed)
    y, outputs = "x", []
    for i, spec in enumerate(specs):
        y = add_chain(net, y, f"c{i}", spec, specs[:i])
        y = add_between(net, y, f"n{i}", spec.between)
        outputs.append(y)
    return net.model(*dict.fromkeys([*outputs[::2], y]))


def add_chain(net: Net, x: str, name: str, spec: ChainSpec, before: list[ChainSpec]) -> str:
    pads = fitting_pads(net.shapes[x][1:], spec)
    first_w, first_b, core_w, last_w = "", "", "", ""
    for i, other in enumerate(before if spec.shares else []):
        if f"c{i}.first.w" in net.weights:
            if net.weights[f"c{i}.first.w"].shape[:2] == (spec.ranks[0], net.shapes[x][0]):
                first_w = f"c{i}.first.w"
            if other.biases[0] and other.ranks[0] == spec.ranks[0]:
                first_b = f"c{i}.first.b"
        if (other.kernel, other.ranks) == (spec.kernel, spec.ranks):
            core_w = f"c{i}.core.w"
        if (other.ranks[1], other.c_out) == (spec.ranks[1], spec.c_out):
            last_w = f"c{i}.last.w"
    core_w, last_w = (w if w in net.weights else "" for w in (core_w, last_w))
    first_b = first_b if first_b in net.weights else ""
    y = net.conv(
        x,
        spec.ranks[0],
        name=f"{name}.first",
        bias=spec.biases[0],
        weight=first_w,
        bias_name=first_b,
    )
    y = activation(net, y, f"{name}.first_act", spec.slopes[0])
    geometry: dict[str, Any] = {
        "strides": spec.strides,
        "dilations": spec.dilations,
        "pads": pads,
    }
    y = net.conv(
        y,
        spec.ranks[1],
        spec.kernel,
        name=f"{name}.core",
        bias=spec.biases[1],
        weight=core_w,
        **geometry,
    )
    y = activation(net, y, f"{name}.core_act", spec.slopes[1])
    y = net.conv(y, spec.c_out, name=f"{name}.last", bias=spec.biases[2], weight=last_w)
    if spec.residual:
        other_path = net.conv(x, spec.c_out, spec.kernel, name=f"{name}.skip", **geometry)
        pair = (other_path, y) if spec.residual == "left" else (y, other_path)
        y = net.add(*pair, f"{name}.add")
    return activation(net, y, f"{name}.act", spec.slopes[2])


def fitting_pads(hw: tuple[int, ...], spec: ChainSpec) -> Pads:
    """The drawn pads, made larger where the dilated kernel would not fit into the image."""
    top, left, bottom, right = spec.pads
    missing = [
        max(0, dilation * (size - 1) + 1 - pixels - pad)
        for dilation, size, pixels, pad in zip(
            spec.dilations, spec.kernel, hw, (top + bottom, left + right), strict=True
        )
    ]
    return top, left, bottom + missing[0], right + missing[1]


def add_between(net: Net, x: str, name: str, kind: str) -> str:
    if kind == "conv":
        return net.conv(x, 5, (3, 3), name=name, bias=True, pads=(1, 1, 1, 1))
    if kind == "grouped":
        return net.conv(x, net.shapes[x][0], group=net.shapes[x][0], name=name)
    if kind == "sigmoid":
        return net.node("Sigmoid", [x], name)
    return x


def content(model: onnx.ModelProto) -> dict[str, Any]:
    """Everything that a model says, with nodes, attributes and initializers in no order."""
    graph = model.graph
    nodes = {
        node.output[0]: (
            node.name,
            node.domain,
            node.op_type,
            tuple(node.input),
            tuple(node.output),
            sorted((a.name, a.SerializeToString(deterministic=True)) for a in node.attribute),
        )
        for node in graph.node
    }
    assert len(nodes) == len(graph.node)
    weights = {}
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        weights[tensor.name] = (values.dtype, values.shape, values.tobytes())
    assert len(weights) == len(graph.initializer)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    records = json.loads(metadata.pop(CHAINS_KEY, "[]"))
    return {
        "nodes": nodes,
        "weights": weights,
        "inputs": [value.SerializeToString(deterministic=True) for value in graph.input],
        "outputs": [(value.name, value.type.tensor_type.elem_type) for value in graph.output],
        "metadata": metadata,
        "records": sorted(json.dumps(record, sort_keys=True) for record in records),
        "opset": {entry.domain: entry.version for entry in model.opset_import},
        "ir_version": model.ir_version,
        "functions": [f.SerializeToString(deterministic=True) for f in model.functions],
    }


def fuse_all(made: Network) -> Network:
    """Fuse every chain, in place."""
    chains = chains_of(made)
    fuse(made, chains, compressed_chains(made, chains))
    return made


def fused_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == "tdc"]


@given(
    specs=st.lists(chain_specs, min_size=1, max_size=3),
    opset=st.sampled_from(OPSETS),
    seed=st.integers(0, 2**32 - 1),
)
@fixed(60)
def test_fuse_and_unfuse_are_inverses(specs: list[ChainSpec], opset: int, seed: int) -> None:
    made = network(build(specs, opset, seed))
    plain = model_of(made)
    expected = [f"c{i}.core" for i in range(len(specs))]
    assert [c.core.name for c in chains_of(made)] == expected

    fused = model_of(fuse_all(made))
    assert len(fused_nodes(fused)) == len(specs)
    onnx.checker.check_model(fused)

    back = opened(fused)
    unfuse(back)
    again = model_of(back)
    before, after = content(plain), content(again)
    # What is fused remains known in the file, and functions need IR version 8.
    before.pop("records"), after.pop("records")
    assert after == before

    assert content(model_of(fuse_all(back))) == content(fused)

    feeds = feeds_of(plain, seed)
    reference = run_float64(plain, feeds)
    for before_y, after_y, exact in zip(
        run(plain, feeds), run(fused, feeds), reference, strict=True
    ):
        assert_same_output(after_y, before_y, exactly=not any(spec.residual for spec in specs))
        assert relative(after_y, exact) <= FLOAT32


def mixed(opset: int, slopes_of_outputs: list[float], inner: list[float]) -> onnx.ModelProto:
    """One chain per slope, each with and without a residual."""
    net = Net(8, (9, 8), opset=opset, batch=2)
    y = "x"
    for i, (slope, inside) in enumerate(zip(slopes_of_outputs, inner, strict=True)):
        biases = (True, True, True)
        end = chain(net, y, f"a{i}", ranks=(5, 3), biases=biases, inner=(inside, inside))
        y = activation(net, end, f"a{i}.act", slope)
        end = chain(net, y, f"b{i}", ranks=(3, 5), biases=biases, inner=(inside, inside))
        y = activation(net, net.add(end, y, f"b{i}.add"), f"b{i}.act", slope)
    return net.model(y)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ([0.0, 0.0], [1.0, 1.0]),
        ([1.0, 1.0], [0.0, 0.0]),
        ([0.0, 1.0], [1.0, 0.0]),
        ([0.0, 0.2], [0.2, 0.2]),
        ([0.3, 1.0], [0.0, -0.5]),
    ],
    ids=str,
)
def test_output_for_uniform_and_mixed_slopes(
    opset: int, outer: list[float], inner: list[float]
) -> None:
    """Where a slope is one for all nodes the body names the activation, else it is a LeakyRelu."""
    plain = mixed(opset, outer, inner)
    fused = model_of(fuse_all(network(plain)))
    onnx.checker.check_model(fused, full_check=True)
    assert sorted(node.op_type for node in fused_nodes(fused)) == [
        *["TuckerConv"] * 2,
        *["TuckerConvAdd"] * 2,
    ]
    body = {f.name: [node.op_type for node in f.node] for f in fused.functions}
    assert set(body) == {"TuckerConv", "TuckerConvAdd"}
    for ops in body.values():
        leaky = (len(set(outer)) > 1 or not set(outer) <= {0.0, 1.0}) + 2 * (
            len(set(inner)) > 1 or not set(inner) <= {0.0, 1.0}
        )
        assert ops.count("LeakyRelu") == leaky
    feeds = feeds_of(plain)
    assert_same_output(run(fused, feeds)[0], run(plain, feeds)[0], exactly=True)
    assert relative(run(fused, feeds)[0], run_float64(plain, feeds)[0]) <= FLOAT32


@pytest.mark.parametrize("opset", OPSETS)
def test_onnx_reference_agrees_with_the_body(opset: int) -> None:
    """The function body means the same to onnx's own evaluator."""
    plain = mixed(opset, [0.0, 0.2], [1.0, 0.0])
    fused = model_of(fuse_all(network(plain)))
    feeds = feeds_of(plain)
    # Both are float64 but for slopes, which the fused node keeps in float32.
    assert relative(run_float64(fused, feeds)[0], run_float64(plain, feeds)[0]) <= 1e-7


def lrelu(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, slope * x)


def operator64(inputs: dict[str, Array], attrs: dict[str, Any]) -> Array:
    """The operator's definition in float64: weights are [out, in], the core [kh, kw, r_out, r_in]."""
    first, core, last = inputs["first"], inputs["core"], inputs["last"]
    t1 = conv64(inputs["X"], first[:, :, None, None], inputs["first_bias"])
    t1 = lrelu(t1, attrs["first_slope"])
    kernel = np.zeros((core.shape[2], core.shape[3], core.shape[0], core.shape[1]))
    for y in range(core.shape[0]):
        for x in range(core.shape[1]):
            kernel[:, :, y, x] = core[y, x]
    t2 = conv64(
        t1, kernel, inputs["core_bias"], attrs["strides"], attrs["pads"], attrs["dilations"]
    )
    t2 = lrelu(t2, attrs["core_slope"])
    y64 = conv64(t2, last[:, :, None, None], inputs["bias"])
    return lrelu(y64 + inputs["R"] if "R" in inputs else y64, attrs["slope"])


ROLES = ("X", "first", "first_bias", "core", "core_bias", "last", "bias", "R")


@given(spec=chain_specs, seed=st.integers(0, 2**32 - 1))
@fixed(40)
def test_the_operator_computes_its_definition(spec: ChainSpec, seed: int) -> None:
    net = Net(5, (9, 8), seed=seed)
    y = add_chain(net, "x", "c0", spec, [])
    skip = [net.shapes[y], net.shapes["x"]]
    plain = net.model(y)
    fused = model_of(fuse_all(network(plain)))
    (node,) = fused_nodes(fused)
    assert skip[1] == (5, 9, 8)
    feeds = feeds_of(plain, seed)
    known = dict(feeds) | {t.name: numpy_helper.to_array(t) for t in fused.graph.initializer}
    if spec.residual:
        conv = next(n for n in plain.graph.node if n.name == "c0.skip")
        attrs = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
        known["c0.skip.out"] = conv64(
            feeds["x"],
            known["c0.skip.w"],
            None,
            attrs["strides"],
            attrs["pads"],
            attrs["dilations"],
        )
    inputs = {
        role: known[name] for role, name in zip(ROLES, node.input, strict=bool(spec.residual))
    }
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert relative(run(fused, feeds)[0], operator64(inputs, attrs)) <= FLOAT32


def test_padding_is_zeros_of_t1() -> None:
    """Not what a padded X would give: there, T1 would be first_bias all around."""
    net = Net(1, (1, 1))
    net.weight("c.first.w", np.zeros((1, 1, 1, 1), np.float32))
    net.weight("c.first.b", np.ones(1, np.float32))
    net.weight("c.core.w", np.ones((1, 1, 3, 3), np.float32))
    net.weight("c.last.w", np.ones((1, 1, 1, 1), np.float32))
    y = chain(net, "x", "c", ranks=(1, 1), c_out=1, biases=(True, False, False))
    fused = model_of(fuse_all(network(net.model(y))))
    assert len(fused_nodes(fused)) == 1
    # T1 is 1 at the only pixel; the eight around it are padding. A padded X would make it 9.
    assert run(fused, {"x": np.zeros((1, 1, 1, 1), np.float32)})[0].item() == 1


def test_layout_of_the_node() -> None:
    """Section 3 of the design: what a plugin will read."""
    net = Net(8, (9, 8))
    y = chain(net, "x", "c", ranks=(3, 2), c_out=6, kernel=(3, 5), pads=(1, 2, 0, 1))
    plain = net.model(net.relu(y, "act"))
    fused = model_of(fuse_all(network(plain)))
    (node,) = fused_nodes(fused)
    weights = {t.name: numpy_helper.to_array(t) for t in fused.graph.initializer}
    shapes = [weights[name].shape for name in node.input[1:]]
    assert shapes == [(3, 8), (3,), (3, 5, 2, 3), (2,), (6, 2), (6,)]
    assert not weights[node.input[2]].any() and not weights[node.input[4]].any()
    assert np.array_equal(weights[node.input[3]][1, 4], net.weights["c.core.w"][:, :, 1, 4])
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert attrs == {
        "strides": [1, 1],
        "pads": [1, 2, 0, 1],
        "dilations": [1, 1],
        "first_slope": 1.0,
        "core_slope": 1.0,
        "slope": 0.0,
        "plugin_version": b"1",
        "plugin_namespace": b"",
    }
    assert {entry.domain: entry.version for entry in fused.opset_import} == {"": 17, "tdc": 1}
    assert fused.ir_version >= 8


def test_only_used_operators_have_bodies() -> None:
    net = Net(8)
    plain = network(net.model(chain(net, "x", "c")))
    assert not model_of(plain).functions
    fused = fuse_all(plain)
    assert [f.name for f in model_of(fused).functions] == ["TuckerConv"]
    unfuse(fused)
    model = model_of(fused)
    assert not model.functions
    assert {entry.domain for entry in model.opset_import} == {""}


def varied(opset: int = 17) -> onnx.ModelProto:
    """Chains with and without what the operator cannot hold: names, absent biases, order of Add."""
    net = Net(8, (9, 8), opset=opset)
    y = chain(net, "x", "a", biases=(False, False, False))
    y = net.relu(net.add("x", y, "a.add"), "a.act")
    y = chain(net, y, "b", biases=(True, False, True), inner=(0.0, 0.3))
    y = net.conv(net.leaky(y, "b.act", 0.2), 8, (3, 3), name="mid", pads=(1, 1, 1, 1))
    return net.model(chain(net, y, "c", kernel=(1, 3), pads=(0, 1, 0, 1)))


def test_file_round_trip(tmp_path: Path) -> None:
    plain = varied()
    before = model_of(network(plain))
    fused = model_of(fuse_all(network(plain)))
    back = read_network(save(fused, tmp_path / "fused.onnx"))
    after = content(model_of(back)) | {"records": []}
    assert after == content(before)
    assert content(model_of(fuse_all(back))) == content(fused)


def test_file_that_lost_its_metadata(tmp_path: Path) -> None:
    """Another tool rewrote it: an equivalent network comes back, with every bias present."""
    plain = varied()
    fused = model_of(fuse_all(network(plain)))
    del fused.metadata_props[:]
    back = read_network(save(fused, tmp_path / "fused.onnx"))
    model = model_of(back)
    onnx.checker.check_model(model)
    assert not fused_nodes(model)
    ops = sorted(node.op_type for node in model.graph.node)
    assert ops == sorted(node.op_type for node in plain.graph.node)
    feeds = feeds_of(plain)
    assert_same_output(run(model, feeds)[0], run(plain, feeds)[0], exactly=True)
    again = model_of(fuse_all(back))
    assert len(fused_nodes(again)) == 3
    assert_same_output(run(again, feeds)[0], run(plain, feeds)[0], exactly=True)


@pytest.mark.parametrize(
    "value", ["no JSON", "null", "7", "{}", "[1]", '[{"name": "a.add"}]', '[{"nodes": null}]']
)
def test_file_whose_metadata_is_damaged(tmp_path: Path, value: str) -> None:
    plain = varied()
    fused = model_of(fuse_all(network(plain)))
    for entry in fused.metadata_props:
        if entry.key == CHAINS_KEY:
            entry.value = value
    back = read_network(save(fused, tmp_path / "fused.onnx"))
    feeds = feeds_of(plain)
    assert_same_output(run(model_of(fuse_all(back)), feeds)[0], run(plain, feeds)[0], exactly=True)


def test_nodes_of_another_tool(tmp_path: Path) -> None:
    """Nodes need no name, and one weight may serve two of them."""
    net = Net(8)
    y = chain(net, chain(net, "x", "a", ranks=(3, 2)), "b", ranks=(3, 2))
    plain = net.model(y)
    fused = model_of(fuse_all(network(plain)))
    del fused.metadata_props[:]
    one, other = fused_nodes(fused)
    other.input[1] = one.input[1]
    one.name = other.name = ""
    expected = run(fused, feeds_of(plain))[0]
    model = model_of(read_network(save(fused, tmp_path / "shared.onnx")))
    assert not fused_nodes(model)
    onnx.checker.check_model(model)
    assert_same_output(run(model, feeds_of(plain))[0], expected, exactly=True)


def test_weights_edited_after_fusing() -> None:
    """Chains that shared a weight and now differ each keep their own."""
    net = Net(8)
    y = chain(net, "x", "a", ranks=(3, 2))
    first = net.conv(y, 3, name="b.first", weight="a.first.w")
    y = net.conv(net.conv(first, 2, (3, 3), name="b.core"), 8, name="b.last")
    fused = model_of(fuse_all(network(net.model(y))))
    for tensor in fused.graph.initializer:
        if tensor.name == fused_nodes(fused)[1].input[1]:
            values = numpy_helper.to_array(tensor) + np.float32(1)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    back = opened(fused)
    unfuse(back)
    plain = model_of(back)
    onnx.checker.check_model(plain)
    feeds = feeds_of(plain)
    assert_same_output(run(plain, feeds)[0], run(fused, feeds)[0], exactly=True)


@pytest.mark.parametrize("part", ["first", "first_bias", "core", "core_bias", "last", "bias"])
def test_name_that_the_operators_weight_would_take(part: str) -> None:
    """A tensor of the model may be called as the fused node's weight would be."""
    net = Net(8)
    y = chain(net, "x", "c")
    name = f"c.last/{part}"
    net.weight(name, np.full((8, 1, 1), 3, np.float32))
    y = net.node("Mul", [y, name], "scaled")
    net.shapes["other"] = (8, 9, 8)
    plain = net.model(y)
    fused = model_of(fuse_all(network(plain)))
    feeds = feeds_of(plain)
    assert_same_output(run(fused, feeds)[0], run(plain, feeds)[0], exactly=True)
    back = opened(fused)
    unfuse(back)
    assert content(model_of(back))["nodes"] == content(model_of(network(plain)))["nodes"]


def test_chain_whose_own_tensors_have_the_operators_names() -> None:
    """As in Keras, where the weights of node c are called c/…; here even the wrong way round."""
    net = Net(8)
    first = net.conv(
        "x", 3, name="c.first", weight="c.last/core", bias=True, bias_name="c.last/bias"
    )
    core = net.conv(first, 3, (3, 3), name="c.core", weight="c.last/first", pads=(1, 1, 1, 1))
    y = net.conv(
        core, 8, name="c.last", weight="c.last/last", bias=True, bias_name="c.last/first_bias"
    )
    y = chain(net, y, "c.last/first")
    plain = network(net.model(y))
    before = model_of(plain)
    fused = model_of(fuse_all(plain))
    assert len(fused_nodes(fused)) == 2
    back = opened(fused)
    unfuse(back)
    assert content(model_of(back)) | {"records": []} == content(before)
    assert content(model_of(fuse_all(back))) == content(fused)
    feeds = feeds_of(before)
    assert_same_output(run(fused, feeds)[0], run(before, feeds)[0], exactly=True)


def test_compressed_chains_are_remembered(tmp_path: Path) -> None:
    """A full-rank decomposition is not recognised by its form; the file says so."""
    net = Net(8)
    y = chain(net, chain(net, "x", "a", ranks=(8, 8)), "b", ranks=(8, 8))
    made = network(net.model(y))
    chains = chains_of(made)
    assert compressed_chains(made, chains) == []
    fuse(made, chains, chains[:1])
    path = save(model_of(made), tmp_path / "fused.onnx")
    for _ in range(2):
        back = read_network(path)
        found = chains_of(back)
        assert [c.core.name for c in compressed_chains(back, found)] == ["a.core"]
        fuse(back, found, compressed_chains(back, found))
        assert len(back.chain_records) == 2
        path = save(model_of(back), tmp_path / "again.onnx")


def test_mark_compressed() -> None:
    """Plain nodes can be marked without being fused, and marking twice is marking once."""
    net = Net(8)
    made = network(net.model(chain(net, "x", "c", ranks=(8, 8))))
    chains = chains_of(made)
    mark_compressed(made, chains)
    mark_compressed(made, chains)
    assert len(made.chain_records) == 1
    again = opened(model_of(made))
    assert len(compressed_chains(again, chains_of(again))) == 1


def test_the_callers_model_is_left_alone() -> None:
    """`network_of` takes what it needs from a model, and nothing away."""
    fused = model_of(fuse_all(network(varied())))
    before = fused.SerializeToString(deterministic=True)
    network_of(fused)
    assert fused.SerializeToString(deterministic=True) == before


def test_a_copy_is_independent() -> None:
    made = network(varied())
    before = content(model_of(made))
    fuse_all(made.copy())
    assert content(model_of(made)) == before


def test_unfusing_leaves_other_nodes_alone() -> None:
    plain = varied()
    made = network(plain)
    unfuse(made)
    assert content(model_of(made)) == content(model_of(network(plain)))


def test_dynamic_batch() -> None:
    net = Net(8, batch="N")
    y = net.relu(net.add(chain(net, "x", "c"), "x", "add"), "act")
    plain = net.model(y)
    fused = model_of(fuse_all(network(plain)))
    assert fused_nodes(fused)
    for batch in (1, 3):
        feeds = feeds_of(plain, batch=batch)
        after = run(fused, feeds)[0]
        assert after.shape[0] == batch
        assert_same_output(after, run(plain, feeds)[0], exactly=True)


def test_infinities_and_nan_come_through() -> None:
    """Fusing hides nothing: what a chain makes of such inputs, the operator makes too."""
    net = Net(8)
    plain = net.model(net.relu(chain(net, "x", "c", inner=(0.0, 0.0)), "act"))
    fused = model_of(fuse_all(network(plain)))
    feeds = feeds_of(plain)
    feeds["x"][0, 0, 0, 0] = np.inf
    feeds["x"][0, 1, 5, 5] = np.nan
    before, after = run(plain, feeds)[0], run(fused, feeds)[0]
    assert np.isnan(before).any()
    assert np.array_equal(np.isfinite(before), np.isfinite(after))


def test_leaky_relu_without_alpha_comes_back_as_it_was() -> None:
    net = Net(8)
    plain = net.model(net.node("LeakyRelu", [chain(net, "x", "c")], "act"))
    made = network(plain)
    before = content(model_of(made))
    unfuse(fuse_all(made))
    assert content(model_of(made)) | {"records": []} == before


def test_empty_bias_name_comes_back_as_no_bias() -> None:
    """A Conv may name its absent bias by an empty string."""
    net = Net(8)
    y = chain(net, "x", "c", biases=(False, False, False))
    plain = net.model(y)
    for node in plain.graph.node:
        node.input.append("")
    fused = model_of(fuse_all(network(plain)))
    assert len(fused_nodes(fused)) == 1
    back = opened(fused)
    unfuse(back)
    feeds = feeds_of(plain)
    # ONNX Runtime chooses other kernels for the empty name.
    assert_same_output(run(model_of(back), feeds)[0], run(plain, feeds)[0], exactly=False)
