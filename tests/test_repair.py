from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
from numpy.typing import NDArray

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.compress import compress
from tdc_deploy.graph.convs import has_bias, kernel
from tdc_deploy.graph.decompose import decompose_conv
from tdc_deploy.graph.network import Network, model_of
from tdc_deploy.repair import MAX_SAMPLES, MAX_SCALE, Repair
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source, read_source
from tdc_deploy.tucker import decompose
from tdc_deploy.types import Candidate, Ranks
from tdc_deploy.verify import relative_error
from tests.builders import LAYERS, images, save_model, small_cnn

BACKEND = OnnxRuntimeBackend(threads=1)
LOW = Candidate("tucker2", Ranks(8, 8), "fused")

# Statistics are of float32 outputs of size one, whose kernels were rounded to float32 once more.
TOLERANCE = 1e-4

Stats = tuple[NDArray[np.float64], NDArray[np.float64]]


def source_of(folder: Path, batch: int = 1, **options: Any) -> Source:
    """A small CNN that is planned at `batch` and runs at any."""
    path = save_model(small_cnn(batch="N", **options), folder / "small.onnx")
    return read_source(path, {"image": (batch, 32, 24, 24)})


def samples_of(count: int, batch: int = 1, seed: int = 1) -> Samples:
    return Samples({"image": images(count, seed=seed)}, batch)


def decomposed(source: Source, selection: Mapping[str, Candidate]) -> tuple[Network, list[gs.Node]]:
    """The source with chains in the place of these layers, and the last node of each."""
    network = source.network.copy()
    nodes = {node.name: node for node in network.graph.nodes}
    ends = []
    for name, candidate in selection.items():
        assert candidate.ranks is not None
        factors = decompose(kernel(nodes[name]), candidate.form, candidate.ranks)
        ends.append(decompose_conv(network.graph, nodes[name], factors)[-1])
    return network, ends


def run(network: Network, tensors: list[str], samples: Samples) -> dict[str, NDArray[Any]]:
    """Those tensors for all samples in one batch, without anything of the library's own measuring."""
    copy = network.copy()
    known = copy.graph.tensors()
    copy.graph.outputs = [known[name] for name in tensors]
    for tensor in copy.graph.outputs:
        tensor.dtype = np.float32
    session = onnxruntime.InferenceSession(
        model_of(copy).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return dict(zip(tensors, session.run(None, dict(samples.arrays)), strict=True))


def channel_stats(network: Network, layer: str, samples: Samples) -> Stats:
    """Mean and standard deviation per channel of what a layer of the source wrote."""
    (value,) = run(network, [f"{layer}.out"], samples).values()
    value = value.astype(np.float64)
    return value.mean((0, 2, 3)), value.std((0, 2, 3))


def largest_difference(a: Stats, b: Stats) -> float:
    return float(max(np.abs(a[0] - b[0]).max(), np.abs(a[1] - b[1]).max()))


def repair_of(source: Source, samples: Samples) -> Repair:
    return Repair(source.network, [f"{layer}.out" for layer in LAYERS], samples, BACKEND)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "candidate",
    [
        LOW,
        Candidate("tucker_in", Ranks(8, 48)),
        Candidate("tucker_out", Ranks(48, 8)),
    ],
    ids=str,
)
def test_statistics_are_those_of_the_dense_layer(
    tmp_path: Path, candidate: Candidate, bias: bool
) -> None:
    source, samples = source_of(tmp_path, bias=bias), samples_of(12)
    dense = channel_stats(source.network, "conv2", samples)
    network, ends = decomposed(source, {"conv2": candidate})
    # Without the repair they are far off, so that the tolerance means something.
    assert largest_difference(channel_stats(network, "conv2", samples), dense) >= 100 * TOLERANCE
    assert has_bias(ends[0]) is bias
    repair_of(source, samples).correct(network, ends)
    assert largest_difference(channel_stats(network, "conv2", samples), dense) <= TOLERANCE
    assert has_bias(ends[0])


@pytest.mark.parametrize("order", [("conv2", "conv3"), ("conv3", "conv2")])
def test_of_two_chains_the_second_is_measured_after_the_first_was_corrected(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    source, samples = source_of(tmp_path), samples_of(12)
    network, ends = decomposed(source, dict.fromkeys(order, LOW))
    repair_of(source, samples).correct(network, ends)
    for name in order:
        dense = channel_stats(source.network, name, samples)
        assert largest_difference(channel_stats(network, name, samples), dense) <= TOLERANCE


def test_correcting_both_chains_at_once_would_not_do(tmp_path: Path) -> None:
    source, samples = source_of(tmp_path), samples_of(12)
    network, ends = decomposed(source, {"conv2": LOW, "conv3": LOW})
    # conv3 is corrected while conv2 still puts out too little.
    repair_of(source, samples).correct(network, ends[1:])
    repair_of(source, samples).correct(network, ends[:1])
    dense = channel_stats(source.network, "conv3", samples)
    assert largest_difference(channel_stats(network, "conv3", samples), dense) >= 10 * TOLERANCE


def test_rows_that_fill_up_a_batch_do_not_count(tmp_path: Path) -> None:
    # Five samples in batches of four: three of eight rows repeat the last.
    source, samples = source_of(tmp_path, batch=4), samples_of(5, batch=4)
    network, ends = decomposed(source, {"conv2": LOW})
    repair_of(source, samples).correct(network, ends)
    dense = channel_stats(source.network, "conv2", samples)
    assert largest_difference(channel_stats(network, "conv2", samples), dense) <= TOLERANCE


def test_a_spread_of_many_samples_is_used(tmp_path: Path) -> None:
    source = source_of(tmp_path, batch=8, decay=0.5)
    many = samples_of(2 * MAX_SAMPLES - 1, batch=8)
    many.arrays["image"][1::2] *= 100
    repair = repair_of(source, many)
    every_other = many.take(slice(0, None, 2))
    assert len(every_other) == MAX_SAMPLES
    assert repair.samples.sha256 == every_other.sha256
    network, ends = decomposed(source, {"conv2": LOW})
    repair.correct(network, ends)
    dense = channel_stats(source.network, "conv2", every_other)
    assert largest_difference(channel_stats(network, "conv2", every_other), dense) <= TOLERANCE


def test_a_lost_channel_keeps_its_mean_and_is_not_blown_up(tmp_path: Path) -> None:
    source, samples = source_of(tmp_path), samples_of(8)
    network, ends = decomposed(source, {"conv2": LOW})
    lost, faint = 3, 5
    weight = np.array(kernel(ends[0]))
    weight[lost] = 0
    weight[faint] *= 1e-6
    ends[0].inputs[1] = gs.Constant(ends[0].inputs[1].name, weight)
    _, before = channel_stats(network, "conv2", samples)
    repair_of(source, samples).correct(network, ends)
    dense_mean, _ = channel_stats(source.network, "conv2", samples)
    mean, std = channel_stats(network, "conv2", samples)
    assert np.abs(mean - dense_mean).max() <= TOLERANCE
    assert std[lost] <= 1e-6  # a constant in float32
    assert std[faint] <= MAX_SCALE * before[faint] + 1e-6  # of the bias's rounding


def test_the_source_is_not_changed(tmp_path: Path) -> None:
    source, samples = source_of(tmp_path), samples_of(8)
    selection = {"conv2": LOW, "conv3": LOW}
    before = run(source.network, ["logits"], samples)["logits"]
    repair = repair_of(source, samples)
    first = model_of(compress(source, selection, repair)).SerializeToString()
    assert np.array_equal(run(source.network, ["logits"], samples)["logits"], before)
    assert model_of(compress(source, selection, repair)).SerializeToString() == first


def test_two_chains_that_share_a_kernel_are_corrected_apart(tmp_path: Path) -> None:
    source, samples = source_of(tmp_path), samples_of(8)
    nodes = {node.name: node for node in source.network.graph.nodes}
    nodes["conv3"].inputs[1] = nodes["conv2"].inputs[1]
    nodes["conv3"].inputs[2] = nodes["conv2"].inputs[2]
    network, ends = decomposed(source, {"conv2": LOW, "conv3": LOW})
    repair_of(source, samples).correct(network, ends)
    for name in ("conv2", "conv3"):
        dense = channel_stats(source.network, name, samples)
        assert largest_difference(channel_stats(network, name, samples), dense) <= TOLERANCE


def test_the_error_on_other_samples_falls(tmp_path: Path) -> None:
    source, held_out = source_of(tmp_path), samples_of(16, seed=99)
    selection = dict.fromkeys(LAYERS, LOW)
    dense = run(source.network, ["logits"], held_out)["logits"]
    repair = repair_of(source, samples_of(16))
    errors = [
        relative_error(dense, run(compress(source, selection, by), ["logits"], held_out)["logits"])
        for by in (None, repair)
    ]
    assert errors[1] <= 0.8 * errors[0]


def test_nothing_to_correct(tmp_path: Path) -> None:
    source, samples = source_of(tmp_path), samples_of(8)
    repair = Repair(source.network, [], samples, BACKEND)
    network = source.network.copy()
    repair.correct(network, [])
    assert model_of(network) == model_of(source.network)
