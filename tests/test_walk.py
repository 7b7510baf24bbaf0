"""A network run piece by piece gives what it gives as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tdc_deploy import walk as walking
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.graph.network import Network, model_of, network_of
from tdc_deploy.walk import Values, Walk
from tests.builders import images, small_cnn

BACKEND = OnnxRuntimeBackend(threads=1)

# The same operators on the same values; pieces may be fused in another way than the whole.
TOLERANCE = 1e-5

CONVS = ("conv1", "conv2", "conv3")


def batches(count: int = 3) -> list[Values]:
    return [{"image": image[None]} for image in images(count)]


def whole(network: Network, names: list[str], feeds: list[Values]) -> list[Values]:
    """Those tensors, from the whole network at once."""
    copy = network.copy()
    known = copy.graph.tensors()
    copy.graph.outputs = [known[name] for name in names]
    for tensor in copy.graph.outputs:
        tensor.dtype = np.float32
    with BACKEND.runner(model_of(copy)) as runner:
        return [dict(runner.infer(feed)) for feed in feeds]


def nodes_of(network: Network) -> dict[str, gs.Node]:
    return {node.name: node for node in network.graph.nodes}


def close(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return bool(np.abs(a - b).max() <= TOLERANCE * np.abs(b).max())


def seen_by(walk: Walk, node: gs.Node) -> tuple[bool, list[Values]]:
    seen: list[Values] = []
    return walk.to(node, lambda _, values: seen.append(values)), seen


def test_each_place_shows_what_its_node_takes_and_puts_out() -> None:
    network, feeds = network_of(small_cnn()), batches()
    walk = Walk(network, feeds, BACKEND)
    for name in CONVS:
        node = nodes_of(network)[name]
        kept, seen = seen_by(walk, node)
        assert kept and len(seen) == len(feeds)
        names = [node.outputs[0].name] + ([node.inputs[0].name] if name != "conv1" else [])
        for found, expected in zip(seen, whole(network, names, feeds), strict=True):
            assert set(found) == {node.inputs[0].name, node.outputs[0].name}
            assert all(close(found[n], expected[n]) for n in names)


def test_large_weights_are_fed_and_not_copied_into_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "FED_BYTES", 1000)
    made: list[onnx.ModelProto] = []
    original = OnnxRuntimeBackend.runner

    def runner(backend: OnnxRuntimeBackend, model: Any) -> Any:
        made.append(onnx.ModelProto.FromString(model.SerializeToString()))
        return original(backend, model)

    network, feeds = network_of(small_cnn()), batches()
    expected = whole(network, ["logits"], feeds)
    monkeypatch.setattr(OnnxRuntimeBackend, "runner", runner)
    walk, conv2 = Walk(network, feeds, BACKEND), nodes_of(network)["conv2"]
    seen_by(walk, conv2)
    for found, values in zip(walk.outputs(walk.kept), expected, strict=True):
        assert set(found) == {"logits"}
        assert close(found["logits"], values["logits"])
    weights = [tensor for model in made for tensor in model.graph.initializer]
    assert len(made) == 2
    assert weights
    assert all(len(tensor.raw_data) < 1000 for tensor in weights)
    # The network itself keeps them.
    assert isinstance(conv2.inputs[1], gs.Constant)


def test_what_a_later_node_needs_is_kept_and_nothing_else() -> None:
    network = network_of(small_cnn())
    walk = Walk(network, batches(), BACKEND)
    seen_by(walk, nodes_of(network)["conv2"])
    # conv1's output after the Relu is added to conv3's.
    assert [set(values) for values in walk.kept] == [{"conv2.out", "relu1"}] * 3
    until = Walk(network, batches(), BACKEND, [nodes_of(network)[name] for name in CONVS[1:]])
    seen_by(until, nodes_of(network)["conv2"])
    assert [set(values) for values in until.kept] == [{"conv2.out"}] * 3
    seen_by(until, nodes_of(network)["conv3"])
    assert until.kept == [{}] * 3


def test_the_outputs_follow_from_what_is_kept() -> None:
    network, feeds = network_of(small_cnn(two_outputs=True)), batches()
    walk = Walk(network, feeds, BACKEND)
    for name in CONVS[:2]:
        seen_by(walk, nodes_of(network)[name])
        expected = whole(network, ["logits", "features"], feeds)
        for found, values in zip(walk.outputs(walk.kept), expected, strict=True):
            assert set(found) == {"logits", "features"}
            assert all(close(found[n], values[n]) for n in found)


def test_an_output_that_was_computed_before_is_passed_on() -> None:
    model = small_cnn()
    model.graph.output.append(helper.make_tensor_value_info("relu1", TensorProto.FLOAT, None))
    network, feeds = network_of(model), batches()
    walk = Walk(network, feeds, BACKEND)
    seen_by(walk, nodes_of(network)["conv3"])
    expected = whole(network, ["logits", "relu1"], feeds)
    for found, values in zip(walk.outputs(walk.kept), expected, strict=True):
        assert close(found["relu1"], values["relu1"]) and close(found["logits"], values["logits"])


def test_a_change_of_an_output_reaches_what_follows() -> None:
    network, feeds = network_of(small_cnn()), batches()
    conv1, conv2 = (nodes_of(network)[name] for name in CONVS[:2])
    walk = Walk(network, feeds, BACKEND)
    seen_by(walk, conv1)
    for i in (1, 2):
        conv1.inputs[i] = gs.Constant(conv1.inputs[i].name, 2 * conv1.inputs[i].values)
    walk.change(conv1.outputs[0], lambda value: 2 * value)
    _, seen = seen_by(walk, conv2)
    for found, expected in zip(seen, whole(network, ["conv2.out"], feeds), strict=True):
        assert close(found["conv2.out"], expected["conv2.out"])


def test_where_too_much_would_be_kept_it_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MAX_KEPT_BYTES", 1000)
    network, feeds = network_of(small_cnn()), batches()
    walk = Walk(network, feeds, BACKEND)
    for name in CONVS[:2]:
        node = nodes_of(network)[name]
        # As `Repair` does: what was changed is computed anew with it.
        kept, seen = seen_by(walk, node)
        assert not kept
        output = node.outputs[0].name
        for found, expected in zip(seen, whole(network, [output], feeds), strict=True):
            assert close(found[output], expected[output])
        node.inputs[1] = gs.Constant(node.inputs[1].name, 2 * node.inputs[1].values)
        walk.change(node.outputs[0], lambda value: 2 * value)
    assert walk.kept == feeds


def test_it_may_stop_where_too_much_would_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MAX_KEPT_BYTES", 1000)
    network, feeds = network_of(small_cnn()), batches()
    walk, seen = Walk(network, feeds, BACKEND), []
    node = nodes_of(network)["conv2"]
    assert not walk.to(node, lambda number, _: seen.append(number), or_stop=True)
    assert seen == [0]
    assert walk.kept == feeds


def test_places_need_not_lie_on_one_way() -> None:
    network, feeds = network_of(small_cnn()), batches()
    # From relu1 to a second convolution, whose output conv3 does not see.
    side = gs.Node("Conv", "side", dict(nodes_of(network)["conv2"].attrs))
    side.inputs = list(nodes_of(network)["conv2"].inputs)
    side.outputs = [gs.Variable("side.out", np.float32)]
    position = network.graph.nodes.index(nodes_of(network)["conv3"])
    network.graph.nodes.insert(position, side)
    network.graph.outputs.append(side.outputs[0])
    places = [nodes_of(network)[name] for name in ("conv2", "side", "conv3")]
    walk = Walk(network, feeds, BACKEND, places)
    for node in places:
        _, seen = seen_by(walk, node)
        output = node.outputs[0].name
        for found, expected in zip(seen, whole(network, [output], feeds), strict=True):
            assert close(found[output], expected[output])


def test_a_place_that_was_passed_is_known() -> None:
    network = network_of(small_cnn())
    walk, nodes = Walk(network, batches(), BACKEND), nodes_of(network)
    assert not walk.is_behind(nodes["conv1"])
    seen_by(walk, nodes["conv2"])
    assert walk.is_behind(nodes["conv1"])
    assert walk.is_behind(nodes["conv2"])
    assert not walk.is_behind(nodes["conv3"])


def _branching() -> Network:
    """image → conv1 → If, whose branches read an earlier tensor and a constant from outside → conv2."""
    model = small_cnn()
    graph = model.graph
    branch = [
        helper.make_graph(
            [helper.make_node(op, ["relu1", "two"], [f"{op}.out"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}.out", TensorProto.FLOAT, None)],
        )
        for op in ("Mul", "Add")
    ]
    nodes = [
        helper.make_node("ReduceMax", ["relu1"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "two"], ["is_large"]),
        helper.make_node(
            "If", ["is_large"], ["chosen"], name="if", then_branch=branch[0], else_branch=branch[1]
        ),
    ]
    graph.initializer.append(helper.make_tensor("two", TensorProto.FLOAT, [], [2.0]))
    position = [node.name for node in graph.node].index("conv2")
    graph.node[position].input[0] = "chosen"
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*rest[:position], *nodes, *rest[position:]])
    return network_of(model)


def test_sizes_that_depend_on_the_values() -> None:
    """image → NonZero, which is kept beside the convolutions until the end."""
    model = small_cnn()
    model.graph.node.insert(0, helper.make_node("NonZero", ["image"], ["places"]))
    model.graph.node.append(helper.make_node("Shape", ["places"], ["count"]))
    model.graph.output.append(helper.make_tensor_value_info("count", TensorProto.INT64, [2]))
    network, feeds = network_of(model), batches()
    for number, feed in enumerate(feeds):
        feed["image"][:, :number] = 0
    walk = Walk(network, feeds, BACKEND)
    for name in CONVS:
        kept, _ = seen_by(walk, nodes_of(network)[name])
        assert kept
    assert all("places" in values for values in walk.kept)
    expected = [int(np.count_nonzero(feed["image"])) for feed in feeds]
    assert len(set(expected)) == len(feeds)
    assert [int(found["count"][1]) for found in walk.outputs(walk.kept)] == expected


def test_what_a_subgraph_reads_is_kept_for_it() -> None:
    network, feeds = _branching(), batches()
    nodes = nodes_of(network)
    relu = next(node for node in network.graph.nodes if node.outputs[0].name == "relu1")
    places = [nodes["conv1"], relu, nodes["conv2"]]
    walk = Walk(network, feeds, BACKEND, places)
    for node in places:
        _, seen = seen_by(walk, node)
        output = node.outputs[0].name
        for found, expected in zip(seen, whole(network, [output], feeds), strict=True):
            assert close(found[output], expected[output])
