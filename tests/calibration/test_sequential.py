"""Decomposing layer behind layer, against least squares on the patches written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tdc_calibration import patches as patches_module
from tdc_calibration.patches import patch_rows
from tdc_calibration.sequential import (
    MIN_SAMPLES,
    SHRINKAGE,
    SequentialChoice,
    best_kernel,
    joint_moments,
    sequential_factors,
)

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.compress import decompose_layers
from tdc_deploy.graph.convs import kernel
from tdc_deploy.graph.network import model_of
from tdc_deploy.repair import Repair
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source, read_source
from tdc_deploy.statistics import LayerStatistics
from tdc_deploy.tucker import Factors, reconstruct
from tdc_deploy.types import Candidate, ConvLayer, Ranks
from tdc_deploy.verify import compare_outputs, run_all
from tests.builders import (
    CLASSES,
    _Graph,
    decaying_kernel,
    images,
    save_model,
    small_cnn,
)
from tests.moments import layer_inputs, measured, patches

BACKEND = OnnxRuntimeBackend(1)
SELECTION = {
    "conv1": Candidate("tucker2", Ranks(8, 8), "fused"),
    "conv2": Candidate("tucker_in", Ranks(8, 48)),
    "conv3": Candidate("tucker2", Ranks(8, 8), "fused"),
}

SEEN = 48

# Sums of products of float32 numbers.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("sequential")
    plain = read_source(save_model(network(), folder / "small.onnx"))
    return plain.with_statistics(measured(plain, samples_of(SEEN)))


def network() -> onnx.ModelProto:
    """Its kernels fall slowly, so that low ranks lose much and the later layers see it."""
    return small_cnn(size=12, decay=0.2)


def samples_of(count: int, seed: int = 1) -> Samples:
    return Samples({"image": images(count, size=12, seed=seed)}, 1)


def repair_of(source: Source, samples: Samples) -> Repair:
    tensors = [source.convs[name].node.outputs[0].name for name in SELECTION]
    return Repair(source.network, tensors, samples, BACKEND)


def error(
    source: Source, samples: Samples, given: dict[str, Factors] | None, repair: Repair
) -> float:
    """Of the network's output on these samples."""
    network = decompose_layers(source, SELECTION, repair, refine=True, given=given)
    with BACKEND.runner(source.path) as before, BACKEND.runner(model_of(network)) as after:
        outputs = run_all(before, samples), run_all(after, samples)
    return compare_outputs(*outputs, samples).error


@pytest.mark.parametrize("chunk", [1, 2**24])
@pytest.mark.parametrize(
    ("kernel_size", "strides", "pads", "dilations"),
    [((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)), ((2, 3), (2, 1), (0, 1, 2, 0), (1, 2))],
)
def test_patches_in_the_order_of_the_kernel(
    kernel_size: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kernel times the rows is ONNX Runtime's convolution."""
    monkeypatch.setattr(patches_module, "CHUNK", chunk)
    layer = ConvLayer("c", 4, 5, kernel_size, strides, pads, dilations, 1, "float32", 3, (9, 8))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 9, 8)).astype(np.float32)
    weight = rng.standard_normal((5, 4, *kernel_size)).astype(np.float32)
    rows = np.concatenate(list(patch_rows(x, layer)))
    found = (rows @ weight.reshape(5, -1).T).reshape(3, *layer.out_hw, 5).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, convolved(x, weight, layer), atol=1e-5)


def convolved(
    x: NDArray[np.float32], weight: NDArray[np.float32], layer: ConvLayer
) -> NDArray[np.float32]:
    attributes = {"strides": layer.strides, "pads": layer.pads, "dilations": layer.dilations}
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)  # type: ignore[arg-type]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4) for name in "xy"
    ]
    graph = helper.make_graph(
        [node], "conv", values[:1], values[1:], [numpy_helper.from_array(weight, "w")]
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    with BACKEND.runner(model) as runner:
        return np.asarray(runner.infer({"x": x})["y"])


def test_joint_moments_of_a_float16_model_are_summed_in_float32(tmp_path: Path) -> None:
    """Squares of its activations are beyond float16."""
    model = network()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    source = read_source(save_model(model, tmp_path / "half.onnx"))
    array = 100 * images(2, size=12)
    half = Samples({"image": array.astype(np.float16)}, 1)
    layer = source.plannable["conv1"]
    joint = joint_moments(source.network, source.network, layer, half, BACKEND)
    x = patches(half.arrays["image"].astype(np.float32), layer)
    own = np.cov(x.T, bias=True)
    ridge = SHRINKAGE * own.trace() / len(x) * np.eye(len(own))
    assert own.max() > np.finfo(np.float16).max / len(x)
    assert np.abs(joint.own - own - ridge).max() <= TOLERANCE * own.max()


def test_joint_moments_and_the_best_kernel_by_least_squares(source: Source) -> None:
    """conv2 behind a conv1 that was decomposed."""
    samples = samples_of(4)
    network = decompose_layers(source, {"conv1": SELECTION["conv1"]})
    layer = source.plannable["conv2"]
    joint = joint_moments(source.network, network, layer, samples, BACKEND)
    x, y = (
        patches(layer_inputs(each, ["conv2"], samples)["conv2"], layer)
        for each in (source.network, network)
    )
    x, y = x - x.mean(0), y - y.mean(0)
    own = y.T @ y / len(y)
    ridge = SHRINKAGE * own.trace() / len(y) * np.eye(len(own))
    for found, expected in ((joint.own, own), (joint.crossed, x.T @ y / len(y))):
        assert np.abs(found - expected - ridge).max() <= TOLERANCE * own.max()
    weight = kernel(source.convs["conv2"].node)
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    # Leaving W costs: rows that say W̃ = W, each as heavy as the ridge.
    heavy = np.sqrt(len(y) * ridge[0, 0]) * np.eye(len(own))
    rows, wanted = np.vstack([y, heavy]), np.vstack([x @ flat.T, heavy @ flat.T])
    best = np.linalg.lstsq(rows, wanted, rcond=None)[0].T
    found = best_kernel(weight, joint).reshape(len(weight), -1)
    assert np.linalg.norm((found - best) @ y.T) <= 1e-3 * np.linalg.norm(best @ y.T)


def test_behind_nothing_that_was_decomposed_the_best_kernel_is_the_layers_own(
    source: Source,
) -> None:
    layer = source.plannable["conv2"]
    joint = joint_moments(source.network, source.network, layer, samples_of(2), BACKEND)
    weight = kernel(source.convs["conv2"].node)
    np.testing.assert_allclose(best_kernel(weight, joint), weight, atol=1e-3)


def test_inputs_without_any_variation_leave_the_kernel(source: Source) -> None:
    layer = source.plannable["conv1"]
    still = Samples({"image": np.zeros((2, 32, 12, 12), np.float32)}, 1)
    joint = joint_moments(source.network, source.network, layer, still, BACKEND)
    weight = kernel(source.convs["conv1"].node)
    np.testing.assert_array_equal(best_kernel(weight, joint), weight)


def with_constant_channels(folder: Path, constant: int) -> Source:
    """image → conv1 → Relu → conv2 (1x1) → conv3 → logits; conv1's first channels are those of a BatchNorm
    whose γ is 0: β, far from zero, whatever the image.
    """
    g = _Graph(0, bias=True)
    first = decaying_kernel(g.rng, 48, 32, 3, 0.2)
    first[:constant] = 0
    x = g.conv("conv1", "image", first)
    bias = np.zeros(48, np.float32)
    bias[:constant] = np.linspace(3.3, 30.1, constant)
    g.weights[-1].CopyFrom(numpy_helper.from_array(bias, "conv1.bias"))
    x = g.conv("conv2", g.node("Relu", [x], "relu1"), decaying_kernel(g.rng, 48, 48, 1, 0.2))
    x = g.conv("conv3", g.node("Relu", [x], "relu2"), decaying_kernel(g.rng, 48, 48, 3, 0.2))
    g.head(x, 48)
    model = g.model({"image": [1, 32, 12, 12]}, {"logits": [1, CLASSES]})
    plain = read_source(save_model(model, folder / "constant.onnx"))
    return plain.with_statistics(measured(plain, samples_of(SEEN)))


POINTWISE = {"conv2": Candidate("svd", Ranks(8, 8)), "conv3": SELECTION["conv3"]}


def test_channels_that_never_change_before_a_1x1_convolution(tmp_path: Path) -> None:
    """Their mean square is a hundred times the others' variance: float32's share of it must not be left."""
    source = with_constant_channels(tmp_path, 8)
    layer, samples = source.plannable["conv2"], samples_of(8)
    joint = joint_moments(source.network, source.network, layer, samples, BACKEND)
    x = patches(layer_inputs(source.network, ["conv2"], samples)["conv2"], layer)
    own = np.cov(x.T, bias=True)
    ridge = SHRINKAGE * own.trace() / len(x)
    np.testing.assert_array_equal(own[:8], 0)
    # Exactly: what is equal has no rounding.
    np.testing.assert_allclose(joint.own[:8], ridge * np.eye(48)[:8], rtol=1e-5)
    # 1152 float32 products a sum, each rounded by 6e-8.
    assert np.abs(joint.own - own - ridge * np.eye(48)).max() <= 1e-5 * own.max()
    # It dies of nothing, whatever it chooses.
    SequentialChoice(samples_of(SEEN), BACKEND)(source, POINTWISE)
    factors = sequential_factors(source, POINTWISE, samples, None, BACKEND)
    assert list(factors) == list(POINTWISE)


def test_where_no_channel_changes_the_best_kernel_is_the_layers_own(tmp_path: Path) -> None:
    source = with_constant_channels(tmp_path, 48)
    layer, weight = source.plannable["conv2"], kernel(source.convs["conv2"].node)
    joint = joint_moments(source.network, source.network, layer, samples_of(4), BACKEND)
    assert joint.own.diagonal().min() > 0
    # A linear solve in float64, of a multiple of the identity.
    np.testing.assert_allclose(best_kernel(weight, joint), weight, rtol=1e-9)
    factors = sequential_factors(source, POINTWISE, samples_of(4), None, BACKEND)
    assert all(np.isfinite(reconstruct(found)).all() for found in factors.values())


def test_what_float32_rounds_is_not_fitted(tmp_path: Path) -> None:
    """Noise of 1e-7 on constant channels, other noise behind the layers before: W* stays near W."""
    source = with_constant_channels(tmp_path, 48)
    noisy = source.network.copy()
    kernels = {}
    for number, network in enumerate((source.network.copy(), noisy)):
        node = next(node for node in network.graph.nodes if node.name == "conv1")
        noise = np.random.default_rng(0).standard_normal(node.inputs[1].values.shape)
        noise *= 1e-7 * (10, 1)[number] / 3
        node.inputs[1].values = noise.astype(np.float32)
        kernels[number] = network
    layer, weight = source.plannable["conv2"], kernel(source.convs["conv2"].node)
    joint = joint_moments(kernels[0], kernels[1], layer, samples_of(8), BACKEND)
    found = best_kernel(weight, joint)
    assert np.linalg.norm(found - weight) <= 0.5 * np.linalg.norm(weight)


def test_in_sequence_the_networks_output_is_closer(source: Source) -> None:
    seen, other = samples_of(SEEN), samples_of(16, seed=5)
    repair = repair_of(source, seen)
    factors = sequential_factors(source, SELECTION, seen, repair, BACKEND)
    assert list(factors) == list(SELECTION)
    assert error(source, other, factors, repair) < 0.93 * error(source, other, None, repair)
    # The first one has nothing before it but is asked for its output's variation, not its energy.
    first = source.decompositions.factors("conv1", SELECTION["conv1"], refine=True)
    assert not np.array_equal(reconstruct(factors["conv1"]), reconstruct(first))


def test_it_is_chosen_where_it_is_better_on_what_it_has_not_seen(source: Source) -> None:
    choice = SequentialChoice(samples_of(SEEN), BACKEND)
    assert set(choice(source, SELECTION)) == set(SELECTION)


def test_it_is_not_chosen_where_it_is_worse(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer is asked for another output."""

    def another(weight: NDArray[np.float32], _: object) -> NDArray[np.float64]:
        return np.random.default_rng(0).standard_normal(weight.shape)

    monkeypatch.setattr("tdc_calibration.sequential.best_kernel", another)
    assert SequentialChoice(samples_of(SEEN), BACKEND)(source, SELECTION) == {}


def test_few_samples_decide_nothing(source: Source) -> None:
    assert SequentialChoice(samples_of(MIN_SAMPLES - 1), BACKEND)(source, SELECTION) == {}


def test_layers_without_patch_moments_are_decomposed_as_ever(source: Source) -> None:
    """One by channel, one without any; the last one behind them."""
    assert source.statistics is not None
    moments = {"conv1": np.eye(32), "conv3": source.statistics.moments["conv3"]}
    mixed = source.with_statistics(LayerStatistics(moments, "mixed"))
    factors = sequential_factors(mixed, SELECTION, samples_of(4), None, BACKEND)
    for name in ("conv1", "conv2"):
        expected = mixed.decompositions.factors(name, SELECTION[name], refine=True)
        np.testing.assert_array_equal(reconstruct(factors[name]), reconstruct(expected))
    ever = mixed.decompositions.factors("conv3", SELECTION["conv3"], refine=True)
    assert not np.array_equal(reconstruct(factors["conv3"]), reconstruct(ever))
