"""A layer's loss alone, from a walk: the same as that of the whole network in which it is compressed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from polygraphy.backend.base import BaseRunner

from tdc_deploy import walk as walking
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.probes import PROBE_SAMPLES, Probes
from tdc_deploy.profiling.store import Store
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source, read_source
from tdc_deploy.types import Candidate, Ranks
from tests.builders import LAYERS, images, save_model, shifts, small_cnn

BACKEND = OnnxRuntimeBackend(threads=1)
FORMS = {
    "conv1": Candidate("tucker_out", Ranks(32, 16)),
    "conv2": Candidate("tucker2", Ranks(12, 12), "fused"),
    "conv3": Candidate("tucker_in", Ranks(16, 48)),
}

# The same network and samples; float32 rounds its pieces in another way.
TOLERANCE = 1e-4


def source_of(folder: Path, batch: int = 1) -> Source:
    path = save_model(small_cnn(batch="N"), folder / "small.onnx")
    return read_source(path, {"image": (batch, 32, 24, 24)})


def evaluator_of(source: Source, folder: Path, samples: Samples) -> Evaluator:
    return Evaluator(source, samples, BACKEND, Store(folder / "store.sqlite3"))


def asked(evaluator: Evaluator, names: Sequence[str] = LAYERS) -> list[float]:
    alone = evaluator.error_alone()
    return [alone({name: FORMS[name]}) for name in names]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("real", [True, False])
def test_it_is_the_error_of_the_whole_network(tmp_path: Path, batch: int, real: bool) -> None:
    source = source_of(tmp_path, batch)
    # As many as are used, so that both see the same; with batches of three the last is filled up.
    samples = Samples({"image": images(2 * PROBE_SAMPLES)}, batch, real=real)
    if not real:
        samples = samples.take(slice(PROBE_SAMPLES))
    evaluator = evaluator_of(source, tmp_path, samples)
    for name, found in zip(LAYERS, asked(evaluator), strict=True):
        expected = evaluator.error({name: FORMS[name]})
        assert expected >= 0.01
        assert abs(found - expected) <= TOLERANCE * expected


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    path = save_model(small_cnn(two_inputs=True, two_outputs=True), tmp_path / "small.onnx")
    arrays = {"image": images(2 * PROBE_SAMPLES), "shift": shifts(2 * PROBE_SAMPLES)}
    evaluator = evaluator_of(read_source(path), tmp_path, Samples(arrays, 1))
    for name, found in zip(LAYERS, asked(evaluator), strict=True):
        expected = evaluator.error({name: FORMS[name]})
        assert abs(found - expected) <= TOLERANCE * expected


def test_any_order_is_answered(tmp_path: Path) -> None:
    samples = Samples({"image": images(2 * PROBE_SAMPLES)}, 1)
    source = source_of(tmp_path)
    probes = Probes(source, *samples.split(), BACKEND)
    forward = {name: probes.error(name, FORMS[name]) for name in LAYERS}
    # Back, and a layer twice; sessions of the same pieces give the same bits.
    for name in ("conv3", "conv3", "conv1", "conv2"):
        assert probes.error(name, FORMS[name]) == forward[name]


def test_candidates_of_one_layer_share_what_lies_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = Samples({"image": images(2 * PROBE_SAMPLES)}, 1)
    probes = Probes(source_of(tmp_path), *samples.split(), BACKEND)
    made: list[BaseRunner] = []
    most = 0
    original = OnnxRuntimeBackend.runner

    def runner(self: OnnxRuntimeBackend, model: onnx.ModelProto | Path) -> BaseRunner:
        nonlocal most
        made.append(original(self, model))
        most = max(most, live())
        return made[-1]

    def live() -> int:
        return sum(one.is_active for one in made)

    monkeypatch.setattr(OnnxRuntimeBackend, "runner", runner)
    first = probes.error("conv2", FORMS["conv2"])
    there, behind, own = 1, 1, 2
    assert len(made) == there + behind + own
    assert probes.error("conv2", FORMS["conv2"]) == first
    assert len(made) == there + behind + 2 * own
    # While the walk goes on, no other session is kept; nor is one afterwards.
    monkeypatch.setattr(Probes, "_compressed", lambda *args: args[-1])
    most = 0
    probes.error("conv3", FORMS["conv3"])
    assert (most, live()) == (0, 1)
    del probes
    assert live() == 0


def test_the_source_is_not_changed(tmp_path: Path) -> None:
    samples = Samples({"image": images(2 * PROBE_SAMPLES)}, 1)
    source = source_of(tmp_path)
    before = [(node.name, [t.name for t in node.inputs]) for node in source.network.graph.nodes]
    users = {t.name: len(t.outputs) for t in source.network.graph.tensors().values()}
    asked(evaluator_of(source, tmp_path, samples))
    after = [(node.name, [t.name for t in node.inputs]) for node in source.network.graph.nodes]
    assert after == before
    assert {t.name: len(t.outputs) for t in source.network.graph.tensors().values()} == users


def test_few_of_many_samples_are_enough(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    many = evaluator_of(source, tmp_path, Samples({"image": images(96)}, 1))
    for name, found in zip(LAYERS, asked(many), strict=True):
        expected = many.error({name: FORMS[name]})
        # Eight samples in the place of 48.
        assert 0.5 * expected <= found <= 2 * expected


def test_a_second_plan_asks_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(tmp_path)
    samples = Samples({"image": images(2 * PROBE_SAMPLES)}, 1)
    first = asked(evaluator_of(source, tmp_path, samples))
    monkeypatch.setattr(Probes, "error", lambda *_: pytest.fail("asked again"))
    assert asked(evaluator_of(source, tmp_path, samples)) == first


def test_large_values_are_left_to_the_whole_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "MAX_KEPT_BYTES", 1000)
    samples = Samples({"image": images(2 * PROBE_SAMPLES)}, 1)
    source = source_of(tmp_path)
    probes = Probes(source, *samples.split(), BACKEND)
    assert [probes.error(name, FORMS[name]) for name in LAYERS] == [None] * 3
    evaluator = evaluator_of(source, tmp_path, samples)
    assert asked(evaluator, ["conv2"]) == [evaluator.error({"conv2": FORMS["conv2"]})]


def test_where_the_few_have_one_output_all_are_asked(tmp_path: Path) -> None:
    """As of a network that puts out classes, most of which are one."""
    array = np.repeat(images(1), 96, 0)
    array[3::16] = images(6, seed=5)  # none of the eight of the verifying half
    samples = Samples({"image": array}, 1)
    evaluator = evaluator_of(source_of(tmp_path), tmp_path, samples)
    few = evaluator.samples.spread(PROBE_SAMPLES).arrays["image"]
    assert (few == few[0]).all()
    assert asked(evaluator, ["conv2"]) == [evaluator.error({"conv2": FORMS["conv2"]})]


def test_an_output_that_never_varies_means_nothing(tmp_path: Path) -> None:
    same = Samples({"image": np.repeat(images(1), 2 * PROBE_SAMPLES, 0)}, 1)
    evaluator = evaluator_of(source_of(tmp_path), tmp_path, same)
    with pytest.raises(TdcError, match="the same for every input"):
        asked(evaluator)
