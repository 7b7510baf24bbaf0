"""What is a chain, what is not, and which chains are compressed layers."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from tdc_deploy.graph.chains import Chain, compressed_chains, find_chains, slope_of
from tdc_deploy.graph.network import CHAINS_KEY
from tdc_deploy.types import Ranks
from tests.helpers import Net, Pads, Pair, activation, chain, chains_of, names, network

SAME: Pads = (1, 1, 1, 1)


def single(model: onnx.ModelProto) -> Chain:
    """The only chain of a model."""
    (found,) = chains_of(network(model))
    return found


def test_plain_chain() -> None:
    net = Net(8)
    found = single(net.model(chain(net, "x", "c", ranks=(3, 2), c_out=6)))
    assert found.nodes.keys() == {"first", "core", "last"}
    assert names(found.nodes.values()) == ["c.first", "c.core", "c.last"]
    assert (found.input.name, found.output.name) == ("x", "c.last.out")
    assert found.ranks == Ranks(3, 2)
    assert found.channels == (8, 6)
    assert found.residual is None


@pytest.mark.parametrize(
    "kernel", [(3, 3), (5, 5), (7, 7), (1, 3), (3, 1), (7, 5), (1, 7)], ids=str
)
def test_kernels_that_the_operator_has(kernel: Pair) -> None:
    net = Net(8)
    assert single(net.model(chain(net, "x", "c", kernel=kernel, pads=(3, 3, 3, 3))))


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (4, 4), (9, 9), (3, 2), (9, 1)], ids=str)
def test_kernels_that_it_has_not(kernel: Pair) -> None:
    net = Net(8)
    model = net.model(chain(net, "x", "c", kernel=kernel, pads=(4, 4, 4, 4)))
    assert chains_of(network(model)) == []


@pytest.mark.parametrize("biases", [(False,) * 3, (True,) * 3, (True, False, True)], ids=str)
def test_biases(biases: tuple[bool, bool, bool]) -> None:
    net = Net(8)
    assert single(net.model(chain(net, "x", "c", biases=biases)))


@pytest.mark.parametrize("slopes", [(0.0, 0.0), (0.0, 1.0), (1.0, 0.2), (0.1, 2.5)], ids=str)
def test_inner_activations(slopes: tuple[float, float]) -> None:
    net = Net(8)
    found = single(net.model(chain(net, "x", "c", inner=slopes)))
    assert slope_of(found.first_activation) == pytest.approx(slopes[0])
    assert slope_of(found.core_activation) == pytest.approx(slopes[1])
    assert not found.looks_compressed


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_activation_after(slope: float) -> None:
    net = Net(8)
    y = activation(net, chain(net, "x", "c"), "act", slope)
    found = single(net.model(y))
    assert found.activation is not None and found.activation.name == "act"
    assert found.output.name == y


def test_leaky_relu_without_alpha_has_the_standard_slope() -> None:
    net = Net(8)
    found = single(net.model(net.node("LeakyRelu", [chain(net, "x", "c")], "act")))
    assert slope_of(found.activation) == 0.01


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_leaky_relu_that_would_come_back_as_another_node(alpha: float) -> None:
    net = Net(8)
    found = single(net.model(net.leaky(chain(net, "x", "c"), "act", alpha)))
    assert found.activation is None
    net = Net(8)
    assert chains_of(network(net.model(chain_with_leaky_inside(net, alpha)))) == []


def chain_with_leaky_inside(net: Net, alpha: float) -> str:
    reduced = net.leaky(net.conv("x", 3, name="first"), "act", alpha)
    return net.conv(net.conv(reduced, 2, (3, 3), name="core"), 8, name="last")


@pytest.mark.parametrize("kind", ["Sigmoid", "Tanh", "Elu", "HardSwish"])
def test_other_activations_end_or_break_it(kind: str) -> None:
    net = Net(8)
    found = single(net.model(net.node(kind, [chain(net, "x", "c")], "act")))
    assert found.activation is None
    net = Net(8)
    between = net.node(kind, [net.conv("x", 3, name="first")], "act")
    y = net.conv(net.conv(between, 2, (3, 3), name="core"), 8, name="last")
    assert chains_of(network(net.model(y))) == []


def test_strided_dilated_core() -> None:
    net = Net(8, (15, 16))
    y = chain(net, "x", "c", strides=(2, 3), dilations=(2, 1), pads=(2, 0, 1, 3))
    assert single(net.model(y))


def broken(change: str) -> onnx.ModelProto:
    """A would-be chain with something in one of its 1x1s that the operator cannot hold."""
    net = Net(8)
    strides: Pair = (2, 1)
    pads: Pads = (0, 1, 0, 0)
    reduced = net.conv(
        "x",
        4,
        name="first",
        strides=strides if change == "first stride" else (1, 1),
        pads=pads if change == "first pads" else (0, 0, 0, 0),
        group=2 if change == "first group" else 1,
    )
    convolved = net.conv(
        reduced, 4, (3, 3), name="core", pads=SAME, group=2 if change == "core group" else 1
    )
    last = net.conv(
        convolved,
        8,
        name="last",
        strides=strides if change == "last stride" else (1, 1),
        pads=pads if change == "last pads" else (0, 0, 0, 0),
        group=2 if change == "last group" else 1,
    )
    return net.model(last)


@pytest.mark.parametrize(
    "change",
    [
        "first stride",
        "first pads",
        "first group",
        "core group",
        "last stride",
        "last pads",
        "last group",
    ],
)
def test_what_the_operator_cannot_hold(change: str) -> None:
    assert chains_of(network(broken("nothing"))) != []
    assert chains_of(network(broken(change))) == []


@pytest.mark.parametrize("tensor", ["c.first.out", "c.core.out"])
def test_intermediate_with_two_readers(tensor: str) -> None:
    net = Net(8)
    y = chain(net, "x", "c")
    other = net.relu(tensor, "other")
    assert chains_of(network(net.model(y, other))) == []


@pytest.mark.parametrize("tensor", ["c.first.out", "c.core.out"])
def test_intermediate_that_is_an_output(tensor: str) -> None:
    net = Net(8)
    y = chain(net, "x", "c")
    assert chains_of(network(net.model(y, tensor))) == []


def test_result_that_is_read_twice_or_an_output_ends_the_chain() -> None:
    net = Net(8)
    y = chain(net, "x", "c")
    activated = net.relu(y, "act")
    found = single(net.model(activated, y))
    assert found.activation is None and found.output.name == y
    net = Net(8)
    y = chain(net, "x", "c")
    found = single(net.model(net.add(net.relu(y, "act"), net.relu(y, "act2"), "sum")))
    assert found.activation is None and found.add is None


def add_if(net: Net, branch: Net, end: str) -> str:
    """An If whose then-branch is `branch`'s nodes up to `end`, and whose else-branch is a Relu of x."""
    other = [helper.make_node("Relu", ["x"], ["else.out"], name="else")]
    graphs = {
        name: helper.make_graph(
            nodes, name, [], [helper.make_tensor_value_info(end_of, onnx.TensorProto.FLOAT, None)]
        )
        for name, nodes, end_of in (
            ("then_branch", branch.nodes, end),
            ("else_branch", other, "else.out"),
        )
    }
    net.weights.update(branch.weights)
    total = net.node("ReduceMax", ["x"], "max", keepdims=0)
    flag = net.node("Cast", [total], "flag", to=onnx.TensorProto.BOOL)
    return net.node("If", [flag], "if", **graphs)


def branch_of(net: Net) -> Net:
    """A net whose nodes will go into a branch, and may read what `net` has."""
    made = Net(8)
    made.shapes = dict(net.shapes)
    return made


@pytest.mark.parametrize("tensor", ["c.first.out", "c.core.out"])
def test_reader_inside_an_if(tensor: str) -> None:
    """A tensor that a branch of an If reads has a reader more than the graph's own nodes show."""
    net = Net(8)
    y = chain(net, "x", "c", ranks=(8, 8))
    branch = branch_of(net)
    made = network(net.model(y, add_if(net, branch, branch.relu(tensor, "then"))))
    assert chains_of(made) == []
    assert chains_of(made.copy()) == []


@pytest.mark.parametrize("inside", ["core", "last", "activation"])
def test_chain_that_goes_on_inside_an_if(inside: str) -> None:
    """One operator cannot stand for nodes of two graphs."""
    net = Net(8)
    branch = branch_of(net)
    order = ["core", "last", "activation"]
    place = {role: branch if order.index(role) >= order.index(inside) else net for role in order}
    y = net.conv("x", 8, name="c.first")
    for role in order:
        place[role].shapes |= {y: (8, 9, 8)}
        if role == "core":
            y = place[role].conv(y, 8, (3, 3), name="c.core", pads=SAME)
        elif role == "last":
            y = place[role].conv(y, 8, name="c.last")
        else:
            y = place[role].relu(y, "c.act")
    for node in branch.nodes:
        if node.op_type == "Conv":  # as exporters write it
            size = [3, 3] if node.name == "c.core" else [1, 1]
            node.attribute.append(helper.make_attribute("kernel_shape", size))
    found = chains_of(network(net.model(add_if(net, branch, y))))
    if inside == "activation":
        assert [c.activation for c in found] == [None]
    else:
        assert found == []


def residual_model(side: str, then: float = 1.0) -> onnx.ModelProto:
    net = Net(8)
    y = chain(net, "x", "c", c_out=8)
    pair = ("x", y) if side == "left" else (y, "x")
    return net.model(activation(net, net.add(*pair, "add"), "act", then))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("slope", [1.0, 0.0, 0.2])
def test_residual(side: str, slope: float) -> None:
    found = single(residual_model(side, slope))
    assert found.add is not None and found.residual is not None
    assert found.residual.name == "x"
    assert (found.activation is not None) == (slope != 1.0)
    assert found.output.name == ("add.out" if slope == 1.0 else "act.out")


def test_activation_before_the_residual_ends_the_chain() -> None:
    net = Net(8)
    y = net.relu(chain(net, "x", "c"), "act")
    found = single(net.model(net.relu(net.add(y, "x", "add"), "after")))
    assert found.activation is not None and found.activation.name == "act"
    assert found.add is None


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (8, 1, 1), (1, 1, 9, 8)], ids=str)
def test_residual_that_is_broadcast(shape: tuple[int, ...]) -> None:
    net = Net(8)
    y = chain(net, "x", "c")
    net.inputs.append(helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, shape))
    found = single(net.model(net.relu(net.add(y, "r", "add"), "act")))
    assert found.add is None and found.residual is None and found.activation is None


def test_chain_that_is_itself_broadcast() -> None:
    net = Net(8, (1, 1))
    y = chain(net, "x", "c")
    net.inputs.append(helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, (1, 8, 5, 5)))
    found = single(net.model(net.add("r", y, "add")))
    assert found.add is None


def test_residual_that_is_stored() -> None:
    net = Net(8)
    y = chain(net, "x", "c")
    stored = net.weight("r", np.ones((1, 8, 9, 8), np.float32))
    assert single(net.model(net.add(y, stored, "add"))).add is None


def test_doubled_result() -> None:
    net = Net(8)
    y = chain(net, "x", "c")
    found = single(net.model(net.add(y, y, "double")))
    assert found.add is None and found.output.name == y


def test_two_chains_that_meet_in_one_add() -> None:
    """The first takes the Add; the second is a chain without it."""
    net = Net(8)
    a, b = chain(net, "x", "a"), chain(net, "x", "b")
    found = chains_of(network(net.model(net.relu(net.add(a, b, "add"), "act"))))
    assert [c.core.name for c in found] == ["a.core", "b.core"]
    assert [c.add is not None for c in found] == [True, False]
    assert found[0].residual is found[1].output


def test_overlapping_chains() -> None:
    """1x1 → 3x3 → 1x1 → 3x3 → 1x1: the middle one belongs to the first."""
    net = Net(8)
    y = chain(net, "x", "a")
    y = net.conv(net.conv(y, 4, (3, 3), name="b.core"), 8, name="b.last")
    assert single(net.model(y)).core.name == "a.core"


def test_chain_after_chain() -> None:
    net = Net(8)
    y = chain(net, chain(net, "x", "a"), "b")
    assert [c.core.name for c in chains_of(network(net.model(y)))] == ["a.core", "b.core"]


def test_computed_weight() -> None:
    net = Net(8)
    reduced = net.conv("x", 3, name="first")
    weight = net.weight("core.w", np.ones((2, 3, 3, 3), np.float32))
    computed = net.node("Relu", [weight], "core.computed")
    core = net.node("Conv", [reduced, computed], "core", (2, 7, 6), kernel_shape=[3, 3])
    assert chains_of(network(net.model(net.conv(core, 8, name="last")))) == []


def test_result_that_is_another_convolutions_weight() -> None:
    """x → 1x1 → (as the weight of) Conv is no chain."""
    net = Net(3, (3, 3))
    weight = net.conv("x", 3, name="first")  # [1, 3, 3, 3]
    net.inputs.append(helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (1, 3, 9, 9)))
    core = net.node("Conv", ["image", weight], "core", (1, 7, 7), kernel_shape=[3, 3])
    assert chains_of(network(net.model(net.conv(core, 8, name="last")))) == []


@pytest.mark.parametrize(
    ("mode", "stride", "pads"),
    [
        ("SAME_UPPER", 1, [1, 2, 1, 2]),
        ("SAME_LOWER", 1, [1, 2, 1, 2]),
        ("VALID", 2, [0, 0, 0, 0]),
        # Its padding depends on the input's size.
        ("SAME_UPPER", 2, None),
    ],
)
def test_auto_pad(mode: str, stride: int, pads: list[int] | None) -> None:
    net = Net(8)
    reduced = net.conv("x", 3, name="first")
    weight = net.weight("core.w", np.ones((2, 3, 3, 5), np.float32))
    strides = [stride, stride]
    core = net.node("Conv", [reduced, weight], "core", (2, 9, 8), auto_pad=mode, strides=strides)
    chains = chains_of(network(net.model(net.conv(core, 8, name="last"))))
    assert [chain.core.attrs["pads"] for chain in chains] == ([] if pads is None else [pads])


def test_bottleneck_is_a_chain_but_not_compressed() -> None:
    """ResNet-50: 256 → 64 → 64 → 256 with Relus inside is a layer of its own right."""
    net = Net(256, (4, 4))
    y = chain(net, "x", "c", ranks=(64, 64), c_out=256, inner=(0.0, 0.0))
    made = network(net.model(net.relu(net.add(y, "x", "add"), "act")))
    found = chains_of(made)
    assert len(found) == 1 and found[0].add is not None
    assert compressed_chains(made, found) == []


@pytest.mark.parametrize(
    ("ranks", "c_out", "compressed"),
    [
        ((3, 2), 8, True),
        ((7, 7), 8, True),
        ((8, 2), 8, False),
        ((3, 8), 8, False),
        ((3, 4), 4, False),
        ((12, 12), 8, False),
    ],
    ids=str,
)
def test_compressed_by_its_form(ranks: Pair, c_out: int, compressed: bool) -> None:
    net = Net(8)
    made = network(net.model(chain(net, "x", "c", ranks=ranks, c_out=c_out)))
    found = chains_of(made)
    assert len(found) == 1
    assert found[0].looks_compressed == compressed
    assert compressed_chains(made, found) == (found if compressed else [])


def test_compressed_by_its_record() -> None:
    """Full rank, with an activation inside: only the record says that it is a decomposition."""
    net = Net(8)
    y = chain(net, "x", "a", ranks=(8, 8), inner=(0.0, 0.0))
    y = chain(net, y, "b", ranks=(8, 8), inner=(0.0, 0.0))
    records = [
        {"name": "a.last", "compressed": True, "nodes": {"core": "a.core"}},
        {"name": "b.last", "compressed": False, "nodes": {"core": "b.core"}},
    ]
    made = network(net.model(y, metadata={CHAINS_KEY: json.dumps(records)}))
    compressed = compressed_chains(made, chains_of(made))
    assert [c.core.name for c in compressed] == ["a.core"]


def test_unknown_shapes_leave_the_residual_out() -> None:
    made = network(residual_model("left"))
    (found,) = find_chains(made, {})
    assert found.add is None
