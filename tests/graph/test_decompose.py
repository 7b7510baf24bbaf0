"""Putting a chain in the place of a convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from tdc_deploy.graph.convs import bias, kernel
from tdc_deploy.graph.decompose import decompose_conv
from tdc_deploy.graph.network import Network, model_of
from tdc_deploy.tucker import decompose, reconstruct
from tdc_deploy.types import Form, Ranks
from tests.helpers import (
    Net,
    Pads,
    Pair,
    chains_of,
    conv64,
    conv_net,
    feeds_of,
    network,
    relative,
    run,
)

# Full rank leaves only rounding: factors are stored in float32 (6e-8), in sums of up to 12·25 terms.
FULL_RANK = 1e-5

GEOMETRIES: list[tuple[Pair, Pair, Pads, Pair]] = [
    ((1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((1, 1), (2, 1), (1, 0, 2, 1), (1, 1)),
    ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((3, 3), (2, 2), (0, 1, 2, 0), (1, 1)),
    ((3, 5), (1, 2), (2, 0, 2, 3), (2, 1)),
    ((4, 2), (1, 1), (0, 0, 0, 0), (1, 2)),
]

FORMS: list[Form] = ["tucker2", "tucker_in", "tucker_out", "svd"]
CASES = [(f, g) for f in FORMS for g in GEOMETRIES if f != "svd" or g[0] == (1, 1)]


def node_of(made: Network, name: str) -> gs.Node:
    (found,) = (node for node in made.graph.nodes if node.name == name)
    return found


def replace_conv(made: Network, name: str, form: Form, ranks: Ranks | None = None) -> list[gs.Node]:
    """Decompose one convolution, at full rank unless ranks are given."""
    node = node_of(made, name)
    m, c = kernel(node).shape[:2]
    if ranks is None:
        ranks = Ranks(min(m, c), min(m, c)) if form == "svd" else Ranks(c, m)
    return decompose_conv(made.graph, node, decompose(kernel(node), form, ranks))


def between_others(
    geometry: tuple[Pair, Pair, Pads, Pair], biased: bool, c_out: int
) -> onnx.ModelProto:
    """A convolution with something before and after it."""
    kernel_size, strides, pads, dilations = geometry
    net = Net(6, (13, 12))
    y = net.conv(
        net.relu("x", "before"),
        c_out,
        kernel_size,
        name="conv",
        bias=biased,
        strides=strides,
        pads=pads,
        dilations=dilations,
    )
    return net.model(net.relu(y, "after"))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("c_out", [4, 12])
@pytest.mark.parametrize(("form", "geometry"), CASES, ids=str)
def test_full_rank_is_the_same_network(
    form: Form, geometry: tuple[Pair, Pair, Pads, Pair], c_out: int, biased: bool
) -> None:
    plain = between_others(geometry, biased, c_out)
    made = network(plain)
    nodes = replace_conv(made, "conv", form)
    model = model_of(made)
    onnx.checker.check_model(model, full_check=True)
    parts = {"tucker2": 3, "tucker_in": 2, "tucker_out": 2, "svd": 2}[form]
    assert len(nodes) == parts
    assert [node.op_type for node in model.graph.node] == ["Relu", *["Conv"] * parts, "Relu"]
    feeds = feeds_of(plain)
    assert relative(run(model, feeds)[0], run(plain, feeds)[0]) <= FULL_RANK


@pytest.mark.parametrize(("form", "geometry"), CASES, ids=str)
def test_truncated_is_the_reconstructed_kernel(
    form: Form, geometry: tuple[Pair, Pair, Pads, Pair]
) -> None:
    """At any rank, the network computes what the factors put together compute."""
    _, strides, pads, dilations = geometry
    plain = between_others(geometry, True, 8)
    made = network(plain)
    conv = node_of(made, "conv")
    weight, stored_bias = kernel(conv), bias(conv)
    ranks = {"tucker_in": Ranks(2, 8), "tucker_out": Ranks(6, 3)}.get(form, Ranks(3, 3))
    rebuilt = reconstruct(decompose(weight, form, ranks))
    assert relative(rebuilt, weight) > 0.01
    replace_conv(made, "conv", form, ranks)
    feeds = feeds_of(plain)
    x = np.maximum(feeds["x"], 0)
    expected = np.maximum(conv64(x, rebuilt, stored_bias, strides, pads, dilations), 0)
    assert relative(run(model_of(made), feeds)[0], expected) <= FULL_RANK


def test_whole_network() -> None:
    plain = conv_net()
    made = network(plain)
    forms: dict[str, Form] = {
        "stem": "tucker_out",
        "block.a": "tucker2",
        "block.b": "tucker_in",
        "down": "tucker2",
        "narrow": "svd",
    }
    for name, form in forms.items():
        replace_conv(made, name, form)
    model = model_of(made)
    onnx.checker.check_model(model, full_check=True)
    feeds = feeds_of(plain)
    # Five layers deep, behind Relus: a few times the rounding of one.
    assert relative(run(model, feeds)[0], run(plain, feeds)[0]) <= 1e-4
    nodes = [node.name for node in model.graph.node]
    tensors = [name for node in model.graph.node for name in node.output]
    weights = [tensor.name for tensor in model.graph.initializer]
    for names in (nodes, tensors + weights):
        assert len(set(names)) == len(names)
    assert {chain.core.name for chain in chains_of(made)} == {"block.a/core", "down/core"}


def test_names_and_places() -> None:
    made = network(conv_net())
    output = node_of(made, "block.a").outputs[0]
    nodes = replace_conv(made, "block.a", "tucker2", Ranks(5, 6))
    assert [node.name for node in nodes] == ["block.a/first", "block.a/core", "block.a/last"]
    assert nodes[-1].outputs == [output] and output.name == "block.a.out"
    assert output.inputs == [nodes[-1]]
    order = [node.name for node in made.graph.nodes]
    start = order.index("block.a/first")
    assert order[start - 1 : start + 4] == ["stem.act", *order[start : start + 3], "block.act"]
    assert [kernel(node).shape for node in nodes] == [(5, 16, 1, 1), (6, 5, 3, 3), (16, 6, 1, 1)]
    assert all(kernel(node).dtype == np.float32 for node in nodes)


def test_the_bias_goes_to_the_last_part() -> None:
    for form in FORMS[:3]:
        made = network(conv_net())
        stored = bias(node_of(made, "down"))
        nodes = replace_conv(made, "down", form)
        assert [bias(node) is None for node in nodes] == [*[True] * (len(nodes) - 1), False]
        kept = bias(nodes[-1])
        assert kept is not None and stored is not None
        assert np.array_equal(kept, stored)
        made = network(conv_net())
        assert all(bias(node) is None for node in replace_conv(made, "block.b", form))


def test_where_the_geometry_goes() -> None:
    geometry: dict[str, Any] = {"strides": [1, 2], "pads": [2, 0, 2, 3], "dilations": [2, 1]}
    plain = {"strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1]}
    for form, strided in (("tucker2", 1), ("tucker_in", 1), ("tucker_out", 0)):
        made = network(between_others(GEOMETRIES[4], True, 8))
        nodes = replace_conv(made, "conv", form)  # type: ignore[arg-type]  # a string in a tuple
        for i, node in enumerate(nodes):
            expected = geometry if i == strided else plain
            assert {key: list(node.attrs[key]) for key in geometry} == expected
            assert tuple(node.attrs["kernel_shape"]) == kernel(node).shape[2:]
    made = network(between_others(GEOMETRIES[1], True, 8))
    first, last = replace_conv(made, "conv", "svd")
    assert list(first.attrs["strides"]) == [2, 1] and list(first.attrs["pads"]) == [1, 0, 2, 1]
    assert list(last.attrs["strides"]) == [1, 1] and not any(last.attrs["pads"])


def test_output_that_is_the_networks_and_read_again() -> None:
    net = Net(6)
    y = net.conv("x", 6, (3, 3), name="conv", bias=True, pads=(1, 1, 1, 1))
    plain = net.model(y, net.add(net.relu(y, "act"), y, "add"))
    made = network(plain)
    replace_conv(made, "conv", "tucker2")
    model = model_of(made)
    feeds = feeds_of(plain)
    for after, before in zip(run(model, feeds), run(plain, feeds), strict=True):
        assert relative(after, before) <= FULL_RANK


def test_a_weight_that_another_convolution_shares() -> None:
    net = Net(6)
    y = net.conv("x", 6, (3, 3), name="one", pads=(1, 1, 1, 1))
    y = net.conv(net.relu(y, "act"), 6, (3, 3), name="two", weight="one.w", pads=(1, 1, 1, 1))
    plain = net.model(y)
    made = network(plain)
    replace_conv(made, "one", "tucker2")
    assert np.array_equal(kernel(node_of(made, "two")), net.weights["one.w"])
    feeds = feeds_of(plain)
    assert relative(run(model_of(made), feeds)[0], run(plain, feeds)[0]) <= FULL_RANK


def test_a_copy_keeps_the_original() -> None:
    plain = conv_net()
    made = network(plain)
    replace_conv(made.copy(), "down", "tucker2", Ranks(1, 1))
    feeds = feeds_of(plain)
    assert np.array_equal(run(model_of(made), feeds)[0], run(plain, feeds)[0])


def test_names_that_are_taken() -> None:
    """A model may have tensors called as the chain's would be."""
    net = Net(6)
    net.weight("conv/core.weight", np.full((1, 6, 1, 1), 2, np.float32))
    y = net.conv("x", 6, (3, 3), name="conv", pads=(1, 1, 1, 1))
    plain = net.model(net.node("Mul", [y, "conv/core.weight"], "scaled"))
    made = network(plain)
    replace_conv(made, "conv", "tucker2")
    feeds = feeds_of(plain)
    assert relative(run(model_of(made), feeds)[0], run(plain, feeds)[0]) <= FULL_RANK
