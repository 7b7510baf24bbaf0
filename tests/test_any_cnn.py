"""Every kind of CNN that a user may bring: built at full ranks, the artifact is the same function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tdc_deploy import api
from tdc_deploy.errors import TdcError
from tdc_deploy.inspection import inspect_model
from tdc_deploy.plan_file import LayerChoice, Plan
from tdc_deploy.progress import silent
from tdc_deploy.runtime.session import load
from tdc_deploy.source import Source, read_source
from tdc_deploy.types import Candidate, ConvLayer, Ranks, Ratio
from tests.fakes import FakeTime, constant_timing
from tests.helpers import FLOAT, Net, Pads, decaying, relative

SAMPLES = 8
SAME: Pads = (1, 1, 1, 1)

# Factors are stored in float32 (6e-8), in sums of up to 16·9 terms, up to four layers deep.
EXACT = 1e-5

# Factors, and every tensor between nodes, are rounded to float16 (5e-4), up to four layers deep.
HALF = 1e-2


@dataclass(frozen=True, eq=False)
class Case:
    """A model; the layers that may be decomposed, the reasons of those that may not, the shapes to plan at.

    `external` writes the weights beside the model.
    """

    model: Callable[[], onnx.ModelProto]
    layers: int
    reasons: tuple[str, ...] = ()
    shapes: dict[str, tuple[int, ...]] | None = None
    external: bool = False
    error: float = EXACT
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Further shapes, of the first input, to run the artifact at."""


def batch_norm(net: Net, x: str, name: str) -> str:
    c = net.shapes[x][0]
    parts = {
        "scale": net.rng.uniform(0.5, 2, c),
        "shift": net.rng.standard_normal(c),
        "mean": net.rng.standard_normal(c),
        "var": net.rng.uniform(0.5, 2, c),
    }
    names = [net.weight(f"{name}.{p}", values.astype(np.float32)) for p, values in parts.items()]
    return net.node("BatchNormalization", [x, *names], name)


def residual(opset: int = 17, batch: int | str = 1) -> onnx.ModelProto:
    """Convolution, BatchNorm and ReLU, a residual addition, a stride, a head."""
    net = Net(3, (10, 9), opset=opset, batch=batch)
    y = net.relu(batch_norm(net, net.conv("x", 8, (3, 3), name="a", pads=SAME), "a.bn"), "a.act")
    z = batch_norm(net, net.conv(y, 8, (3, 3), name="b", pads=SAME), "b.bn")
    y = net.relu(net.add(z, y, "add"), "b.act")
    y = net.relu(net.conv(y, 12, (3, 3), name="c", bias=True, strides=(2, 2)), "c.act")
    return net.model(net.head(y))


def geometry(*, opset: int = 17) -> onnx.ModelProto:
    """Asymmetric kernels, pads, strides and dilations."""
    net = Net(6, (13, 12), opset=opset)
    y = net.conv("x", 8, (1, 5), name="row", pads=(0, 2, 0, 2))
    y = net.conv(y, 8, (5, 1), name="column", pads=(1, 0, 3, 0), bias=True)
    y = net.conv(net.relu(y, "act"), 6, (3, 2), name="odd", strides=(2, 1), pads=(0, 1, 2, 0))
    y = net.conv(y, 7, (2, 3), name="spread", dilations=(2, 1), pads=(2, 0, 0, 1))
    return net.model(y)


def auto_padded(mode: str, batch: int | str = 1, size: str | None = None) -> onnx.ModelProto:
    """Every padding written as auto_pad; `size` names an open height."""
    net = Net(6, (13, 12), batch=batch)
    y, c_in = "x", 6
    for i, (c, kernel, strides, dilations) in enumerate(
        [
            (8, (3, 3), (1, 1), (1, 1)),
            (8, (4, 2), (1, 1), (1, 1)),
            (8, (3, 3), (1, 1), (1, 1) if mode.startswith("SAME") else (2, 1)),
            (10, (3, 3), (2, 2), (1, 1)),
            (8, (1, 1), (2, 1), (1, 1)),
        ]
    ):
        weight = net.weight(f"w{i}", decaying(net.rng, c, c_in, *kernel))
        # ONNX Runtime refuses dilations with SAME_UPPER and SAME_LOWER.
        attrs = {"strides": strides, "auto_pad": mode, "dilations": dilations}
        y, c_in = net.node("Conv", [y, weight], f"conv{i}", (c, 1, 1), **attrs), c
    if size is not None:
        net.inputs[0].type.tensor_type.shape.dim[2].dim_param = size
    return net.model(net.head(y))


def open_sizes() -> onnx.ModelProto:
    """Fully convolutional, batch and both sizes open, with two outputs of two scales."""
    net = Net(3, (16, 16), batch="N")
    for axis, name in ((2, "height"), (3, "width")):
        net.inputs[0].type.tensor_type.shape.dim[axis].dim_param = name
    y = net.relu(net.conv("x", 8, (3, 3), name="a", pads=SAME, bias=True), "a.act")
    down = net.relu(net.conv(y, 12, (3, 3), name="b", pads=SAME, strides=(2, 2)), "b.act")
    return net.model(net.conv(y, 6, (3, 3), name="fine", pads=SAME), net.conv(down, 5, name="low"))


def shared(channels: int = 8) -> onnx.ModelProto:
    """One kernel in three convolutions of other strides, one bias in two, and a Mul that reads it too."""
    net = Net(channels, (12, 12))
    m, k = channels, (3, 3)
    a = net.conv("x", m, k, name="a", pads=SAME, weight="w", bias=True, bias_name="bias")
    b = net.conv(net.relu(a, "act"), m, k, name="b", pads=SAME, weight="w")
    c = net.conv(b, m, k, name="c", strides=(2, 2), weight="w", bias=True, bias_name="bias")
    scaled = net.node("Mul", ["w", net.weight("two", np.full((), 2, np.float32))], "twice")
    return net.model(net.head(c), scaled)


def shared_before_batch_norm() -> onnx.ModelProto:
    """One kernel in two convolutions, each with a BatchNorm of its own."""
    net = Net(8, (9, 9))
    a = batch_norm(net, net.conv("x", 8, (3, 3), name="a", pads=SAME, weight="w"), "a.bn")
    b = net.conv(net.relu(a, "act"), 8, (3, 3), name="b", pads=SAME, weight="w")
    return net.model(net.head(batch_norm(net, b, "b.bn")))


def constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every initializer as a Constant node."""
    nodes = [
        helper.make_node("Constant", [], [tensor.name], name=f"{tensor.name}/c", value=tensor)
        for tensor in model.graph.initializer
    ]
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def hidden_batch_norm(opset: int = 20) -> onnx.ModelProto:
    """BatchNorm's parameters behind CastLike and Expand to a Shape, as torch's dynamo exporter writes."""
    net = Net(3, (10, 9), opset=opset)
    y = net.conv("x", 8, (3, 3), name="a", pads=SAME)
    size = net.node("Shape", [net.weight("like", np.zeros(8, np.float32))], "size")
    one = net.weight("one", np.ones((), np.float64))
    like = net.weight("kind", np.zeros((), np.float32))
    ones = net.node("Expand", [net.node("CastLike", [one, like], "cast"), size], "ones")
    zero = net.weight("zero", np.zeros((), np.float32))
    zeros = net.node("Expand", [zero, size], "zeros")
    mean = net.weight("mean", net.rng.standard_normal(8, np.float32))
    var = net.weight("var", net.rng.uniform(0.5, 2, 8).astype(np.float32))
    y = net.node("BatchNormalization", [y, ones, zeros, mean, var], "bn", net.shapes[y])
    return net.model(net.head(net.conv(net.relu(y, "act"), 6, (3, 3), name="b", pads=SAME)))


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float16 weights, inputs and outputs."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        graphs += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
        for value in [*graph.input, *graph.output, *graph.value_info]:
            if value.type.tensor_type.elem_type == FLOAT:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(model, full_check=True)
    return model


def stored_as_half() -> onnx.ModelProto:
    """Computes in float32, with weights stored in float16 behind Casts."""
    net = Net(3, (10, 9))
    y = net.relu(net.conv("x", 32, (3, 3), name="a", pads=SAME), "act")
    # Larger than what onnxscript folds unasked.
    model = net.model(net.head(batch_norm(net, net.conv(y, 32, (3, 3), name="b"), "bn")))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}/half"))
            cast = helper.make_node("Cast", [f"{name}/half"], [name], name=f"{name}/cast", to=FLOAT)
            model.graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    return model


def several() -> onnx.ModelProto:
    """Two images of other sizes and a vector in; scores, features, a whole number and a constant out."""
    net = Net(3, (10, 9), batch="N")
    net.inputs.append(helper.make_tensor_value_info("second", FLOAT, ["N", 4, 6, 6]))
    net.inputs.append(helper.make_tensor_value_info("vector", FLOAT, ["N", 5]))
    net.shapes |= {"second": (4, 6, 6), "vector": (5, 1, 1)}
    a = net.head(net.relu(net.conv("x", 8, (3, 3), name="a", pads=SAME), "a.act"), name="head_a")
    b = net.head(net.relu(net.conv("second", 8, (3, 3), name="b"), "b.act"), name="head_b")
    scores = net.add(net.add(a, b, "both"), "vector", "scores")
    best = net.node("ArgMax", [scores], "best", axis=1)
    model = net.model(scores, b)
    model.graph.output.append(helper.make_tensor_value_info(best, TensorProto.INT64, ["N", 1]))
    onnx.checker.check_model(model)
    return model


def branch(name: str, nodes: list[onnx.NodeProto], output: str) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(output, TensorProto.UNDEFINED, None)
    return helper.make_graph(nodes, name, [], [value])


def with_if() -> onnx.ModelProto:
    """An If whose branches read the outer convolutions' outputs, weights, and one of them nothing else."""
    net = Net(4, (9, 9))
    a = net.conv("x", 8, (3, 3), name="a", pads=SAME, bias=True)
    b = net.conv(net.relu(a, "act"), 8, (3, 3), name="b", pads=SAME)
    mean = net.node("ReduceMean", ["x"], "mean", keepdims=0)
    positive = net.node("Greater", [mean, net.weight("zero", np.zeros((), np.float32))], "positive")
    then = branch(
        "then", [helper.make_node("Conv", [a, "b.w"], ["then.out"], "inner", pads=SAME)], "then.out"
    )
    negated = [
        helper.make_node("Neg", [b], ["else.neg"], "neg"),
        helper.make_node("Add", ["else.neg", a], ["else.out"], "else.add"),
    ]
    y = net.node(
        "If", [positive], "choose", (8, 9, 9), then_branch=then,
        else_branch=branch("else", negated, "else.out"),
    )  # fmt: skip
    y = net.conv(y, 6, (3, 3), name="c", pads=SAME)
    return net.model(net.head(net.add(net.conv(b, 6, name="d"), y, "add")))


def with_if_that_returns_outer_tensors() -> onnx.ModelProto:
    """Branches without nodes of their own but an Identity of a tensor that nothing else reads."""
    net = Net(4, (9, 9))
    a = net.conv("x", 8, (3, 3), name="a", pads=SAME)
    b = net.conv("x", 8, (3, 3), name="b", pads=SAME, bias=True)
    mean = net.node("ReduceMean", ["x"], "mean", keepdims=0)
    positive = net.node("Greater", [mean, net.weight("zero", np.zeros((), np.float32))], "positive")
    then, other = (
        branch(n, [helper.make_node("Identity", [t], [f"{n}.out"], f"{n}.id")], f"{n}.out")
        for n, t in (("then", a), ("else", b))
    )
    y = net.node("If", [positive], "choose", (8, 9, 9), then_branch=then, else_branch=other)
    return net.model(net.head(y))


def with_loop() -> onnx.ModelProto:
    """A Loop that adds an outer convolution's output three times, through an If inside it."""
    net = Net(4, (9, 9))
    a = net.conv("x", 8, (3, 3), name="a", pads=SAME)
    b = net.conv(a, 8, (3, 3), name="b", pads=SAME, bias=True)
    net.weight("three", np.array(3))
    net.weight("true", np.array(True))
    net.weight("tenth", np.full((), 0.1, np.float32))
    added = branch(
        "added", [helper.make_node("Add", ["carried", a], ["added.out"], "+")], "added.out"
    )
    scaled = [helper.make_node("Mul", [b, "tenth"], ["scaled.out"], "*")]
    body = helper.make_graph(
        [
            helper.make_node("If", ["going"], ["next"], "inner", then_branch=added,
                             else_branch=branch("scaled", scaled, "scaled.out")),
            helper.make_node("Identity", ["going"], ["still"], "still"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", FLOAT, [1, 8, 9, 9]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, [1, 8, 9, 9]),
        ],
    )  # fmt: skip
    y = net.node("Loop", ["three", "true", b], "loop", (8, 9, 9), body=body)
    return net.model(net.head(net.conv(net.relu(y, "act"), 6, (3, 3), name="c", pads=SAME)))


def values(net: Net, *shape: int) -> NDArray[np.float32]:
    fan_in = np.prod(shape[1:])
    return np.asarray(net.rng.standard_normal(shape) / fan_in**0.5, np.float32)


def left_dense() -> onnx.ModelProto:
    """Grouped, depthwise, 1-D, 3-D and transposed convolutions around two that can be decomposed."""
    net = Net(8, (8, 8))
    y = net.conv("x", 8, (3, 3), name="plain", pads=SAME)
    y = net.conv(y, 8, (3, 3), name="grouped", group=2, pads=SAME)
    y = net.relu(net.conv(y, 8, (3, 3), name="depthwise", group=8, pads=SAME), "act")
    weight = net.weight("up.w", decaying(net.rng, 8, 8, 2, 2))
    y = net.node("ConvTranspose", [y, weight], "up", (8, 16, 16), strides=(2, 2))
    y = net.conv(y, 8, (3, 3), name="after", strides=(2, 2), pads=SAME)
    line = net.node("Reshape", [y, net.weight("to1", np.array([1, 8, 64]))], "line")
    line = net.node("Conv", [line, net.weight("w1", values(net, 8, 8, 3))], "one", pads=(1, 1))
    cube = net.node("Reshape", [line, net.weight("to3", np.array([1, 8, 4, 4, 4]))], "cube")
    cube = net.node("Conv", [cube, net.weight("w3", values(net, 8, 8, 1, 3, 3))], "three")
    flat = net.node("Reshape", [cube, net.weight("to2", np.array([1, 8, 4, 4]))], "flat", (8, 4, 4))
    return net.model(net.head(flat))


def sparse_names() -> onnx.ModelProto:
    """No node has a name, no Conv says its kernel_shape, and a bias is given as the empty name."""
    model = residual()
    for node in model.graph.node:
        node.name = ""
        if node.op_type == "Conv":
            kept = [a for a in node.attribute if a.name in ("pads", "strides")]
            del node.attribute[:]
            node.attribute.extend(kept)
            if len(node.input) == 2:
                node.input.append("")
    return model


CASES: dict[str, Case] = {
    **{f"opset {n}": Case(partial(residual, n), 3) for n in range(11, 24)},
    "open batch": Case(lambda: residual(batch="N"), 3, sizes={"batch 3": (3, 3, 10, 9)}),
    "open sizes": Case(open_sizes, 4, shapes={"x": (2, 3, 16, 20)}, sizes={"other": (1, 3, 9, 31)}),
    "external weights": Case(residual, 3, external=True),
    "external constants": Case(lambda: constants(residual()), 3, external=True),
    "constants": Case(lambda: constants(residual()), 3),
    "constants, shared": Case(lambda: constants(shared()), 3),
    "shared kernel": Case(shared, 3),
    "shared before BatchNorm": Case(shared_before_batch_norm, 2),
    "hidden BatchNorm": Case(hidden_batch_norm, 2),
    "hidden BatchNorm, opset 15": Case(lambda: hidden_batch_norm(15), 2),
    "geometry": Case(geometry, 4),
    **{
        f"auto_pad {mode}": Case(partial(auto_padded, mode), 5)
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET")
    },
    "auto_pad SAME_UPPER, open height": Case(
        lambda: auto_padded("SAME_UPPER", size="h"),
        5,
        shapes={"x": (1, 6, 13, 12)},
        sizes={"other": (1, 6, 16, 12)},
    ),
    "auto_pad SAME_LOWER, open height": Case(
        lambda: auto_padded("SAME_LOWER", size="h"),
        5,
        shapes={"x": (1, 6, 13, 12)},
        sizes={"other": (1, 6, 16, 12)},
    ),
    "float16": Case(lambda: half(residual()), 3, error=HALF),
    "float16, shared": Case(lambda: half(shared()), 3, error=HALF),
    "float16, geometry": Case(lambda: half(geometry()), 4, error=HALF),
    "float16, If": Case(lambda: half(with_if()), 4, error=HALF),
    "float16 behind Casts": Case(stored_as_half, 2),
    "several inputs and outputs": Case(several, 2),
    "If": Case(with_if, 4),
    "If of outer tensors": Case(with_if_that_returns_outer_tensors, 2),
    "Loop": Case(with_loop, 3),
    "left dense": Case(
        left_dense,
        2,
        ("it is grouped", "it is depthwise", "it is transposed", "it is 1-D", "it is 3-D"),
    ),
    "sparse names": Case(sparse_names, 3),
}


def full_ranks(layer: ConvLayer) -> LayerChoice:
    """A decomposition that loses nothing."""
    return LayerChoice(Candidate("tucker2", Ranks(layer.c_in, layer.c_out), "fused"))


def written(case: Case, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(
        case.model(),
        str(path),
        save_as_external_data=case.external,
        location="model.data" if case.external else None,
        size_threshold=0,
        convert_attribute=True,
    )
    return path


def arrays(source: Source, rows: int = SAMPLES) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(1)
    batch = next(iter(source.inputs.values()))[0]
    return {
        tensor.name: (
            rng.standard_normal((rows * batch, *source.inputs[tensor.name][1:]))
            * rng.uniform(0.5, 2, (rows * batch, *[1] * (len(source.inputs[tensor.name]) - 1)))
        ).astype(tensor.dtype)
        for tensor in source.network.graph.inputs
    }


def outputs(path: Path, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    with load(path, threads=1) as session:
        result = session(feeds)
    return result if isinstance(result, dict) else {"only": result}


def check_full_ranks(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build at full ranks, in fake time, and compare the artifact with the model."""
    path = written(case, tmp_path)
    source = read_source(path, case.shapes)
    assert len(source.plannable) == case.layers
    given = arrays(source)
    np.savez(tmp_path / "in.npz", **given)  # type: ignore[arg-type]  # of its other options
    FakeTime(monkeypatch).ratio = (0.5, 0.4, 0.6)
    artifact = api.build(
        path,
        tmp_path / "out.onnx",
        plan=Plan({n: full_ranks(layer) for n, layer in source.plannable.items()}),
        inputs=tmp_path / "in.npz",
        max_error=1.0,
        shapes=case.shapes,
        threads=1,
    )
    assert artifact.decision == "compressed"
    onnx.checker.check_model(str(artifact.path), full_check=True)
    first = {n: array[: source.inputs[n][0]] for n, array in given.items()}
    rng = np.random.default_rng(2)
    others = [
        {
            **first,
            next(iter(first)): rng.standard_normal(size).astype(given[next(iter(first))].dtype),
        }
        for size in case.sizes.values()
    ]
    for feeds in [first, *others]:
        before, after = outputs(path, feeds), outputs(artifact.path, feeds)
        assert list(before) == list(after)
        for key, expected in before.items():
            assert after[key].dtype == expected.dtype
            assert relative(after[key], expected) <= case.error, key


@pytest.mark.parametrize("name", CASES)
def test_built_at_full_ranks_it_is_the_same_function(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_full_ranks(CASES[name], tmp_path, monkeypatch)
    assert sorted(file.name for file in tmp_path.glob("out*")) == ["out.onnx", "out.onnx.json"]


@pytest.mark.parametrize("name", ["open batch", "If", "float16", "constants", "shared kernel"])
def test_and_where_its_weights_do_not_fit_into_one_message(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tdc_deploy.graph.large.MAX_INLINE_BYTES", 1000)
    check_full_ranks(CASES[name], tmp_path, monkeypatch)
    assert len(list(tmp_path.glob("out.onnx.*.data"))) == 1


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.reasons])
def test_what_stays_dense_is_said(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    found = inspect_model(written(case, tmp_path), shapes=case.shapes, progress=silent)
    notes = [layer.note for layer in found.layers if layer.note]
    assert notes == [f"stays dense: {reason}" for reason in case.reasons]


def test_a_kernel_that_layers_share_is_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(Case(lambda: shared(32), 3), tmp_path)
    source = read_source(path)
    FakeTime(monkeypatch).ratio = (0.5, 0.4, 0.6)
    choice = LayerChoice(Candidate("tucker2", Ranks(24, 20), "fused"))
    plan = Plan(dict.fromkeys(source.plannable, choice))
    artifact = api.build(path, tmp_path / "out.onnx", plan=plan, max_error=1.0, threads=1)
    stored = {t.name: tuple(t.dims) for t in onnx.load(str(artifact.path)).graph.initializer}
    large = sorted(dims for dims in stored.values() if np.prod(dims) >= 32 * 20)
    # `w` itself stays for the Mul.
    assert large == sorted([(24, 32), (3, 3, 20, 24), (32, 20), (32, 32, 3, 3)])
    again = api.build(artifact.path, tmp_path / "again.onnx", max_error=1.0, threads=1)
    assert again.decision == "fused"
    assert (tmp_path / "again.onnx").stat().st_size <= artifact.path.stat().st_size


def test_a_weight_that_is_larger_than_a_message(tmp_path: Path) -> None:
    model, rows = residual(), 2**29 // 128
    table = model.graph.initializer.add(name="table", data_type=FLOAT, dims=[rows, 128])
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value="table.data")
    (tmp_path / "table.data").touch()
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(TdcError, match=r"(?s)'table'.*less than 2 GiB in one weight"):
        read_source(tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_model_of_more_than_two_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tables of zeros that one row is read of: holes on the disk, but MEMORY in memory."""
    model, rows = residual(), 2**29 // 128 * 9 // 16
    for number, name in enumerate(("table", "other")):  # equal ones would become one
        table = model.graph.initializer.add(name=name, data_type=FLOAT, dims=[rows, 128])
        table.data_location = TensorProto.EXTERNAL
        for key, value in {"location": f"{name}.data", "length": str(rows * 512)}.items():
            table.external_data.add(key=key, value=value)
        with (tmp_path / f"{name}.data").open("wb") as file:
            file.seek(rows * 512 - 4)
            file.write(np.float32(number).tobytes())
    model.graph.initializer.append(numpy_helper.from_array(np.array([7]), "row"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 1]), "axes"))
    last = model.graph.output[0].name
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["table", "row"], ["one"], "gather"),
            helper.make_node("Gather", ["other", "row"], ["two"], "gather2"),
            helper.make_node("Add", ["one", "two"], ["values"], "both"),
            helper.make_node("ReduceSum", ["values"], ["sum"], "sum", keepdims=0),
            helper.make_node("Add", [last, "sum"], ["y"], "shift"),
        ]
    )
    model.graph.output[0].name = "y"
    onnx.save(model, str(tmp_path / "model.onnx"))
    source = read_source(tmp_path / "model.onnx")
    given = arrays(source)
    np.savez(tmp_path / "in.npz", **given)  # type: ignore[arg-type]  # of its other options
    ratio = Ratio(0.5, 0.4, 0.6, constant_timing(2.0), constant_timing(1.0))
    monkeypatch.setattr("tdc_deploy.evaluate.compare_fresh", lambda *_: ratio)
    plan = Plan({n: full_ranks(layer) for n, layer in source.plannable.items()})
    artifact = api.build(
        source.path,
        tmp_path / "out.onnx",
        plan=plan,
        inputs=tmp_path / "in.npz",
        max_error=1.0,
        threads=1,
    )
    assert artifact.decision == "compressed"
    (data,) = tmp_path.glob("out.onnx.*.data")
    assert data.stat().st_size > 2**31
    one = {name: array[:1] for name, array in given.items()}
    (before,), (after,) = (outputs(p, one).values() for p in (source.path, artifact.path))
    assert relative(after, before) <= EXACT
