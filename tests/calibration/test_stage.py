"""Builds and plans with calibration data: which sample does what, and what is refused before any work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tdc_calibration import calibrate
from tdc_calibration.readers import Preprocessing, input_spec, open_data
from tdc_calibration.stage import CalibrationData, calibrated

from tdc_deploy import api
from tdc_deploy.artifact import Artifact
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import LayerChoice, Plan
from tdc_deploy.progress import silent
from tdc_deploy.samples import Samples
from tdc_deploy.sidecar import read_sidecar
from tdc_deploy.source import Source, read_source
from tests.builders import images, save_model, save_npz, small_cnn
from tests.calibration.test_sequential import SELECTION, network
from tests.fakes import FakeTime
from tests.moments import measured

BACKEND = OnnxRuntimeBackend(1)
SIZE = 12
GIVEN = Plan({name: LayerChoice(candidate) for name, candidate in SELECTION.items()})

# The measured moments are products in float32.
TOLERANCE = 1e-5


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(network(), tmp_path / "small.onnx")


def pictures(count: int, seed: int = 1) -> NDArray[np.float32]:
    return images(count, size=SIZE, seed=seed)


def samples_of(array: NDArray[np.float32]) -> Samples:
    return Samples({"image": array}, 1)


def stage(source: Source, data: Any, inputs: Samples | None = None, **options: Any) -> Any:
    return calibrated(source, CalibrationData(data, **options), inputs, BACKEND, silent)


def assert_measured_on(source: Source, array: NDArray[np.float32]) -> None:
    assert source.statistics is not None
    expected = measured(source, samples_of(array)).moments
    assert set(source.statistics.moments) == set(expected)
    for name, moment in expected.items():
        difference = np.abs(source.statistics.moments[name] - moment).max()
        assert difference <= TOLERANCE * moment.max()


def test_inputs_verify_and_the_data_do_the_rest(model: Path) -> None:
    source, data = read_source(model), pictures(20)
    inputs = samples_of(pictures(9, seed=2))
    found = stage(source, lambda: iter(data), inputs)
    repair, verify = found.samples.split()
    np.testing.assert_array_equal(repair.arrays["image"], data)
    np.testing.assert_array_equal(verify.arrays["image"], inputs.arrays["image"])
    assert_measured_on(found.source, data)
    assert found.in_sequence.samples is repair


def test_without_inputs_every_other_sample_verifies_and_is_not_measured(model: Path) -> None:
    source, data = read_source(model), pictures(21)
    found = stage(source, lambda: iter(data))
    repair, verify = found.samples.split()
    np.testing.assert_array_equal(repair.arrays["image"], data[0::2])
    np.testing.assert_array_equal(verify.arrays["image"], data[1::2])
    assert_measured_on(found.source, data[0::2])


def test_of_few_samples_all_do_both(model: Path) -> None:
    source, data = read_source(model), pictures(9)
    found = stage(source, data)
    for samples in found.samples.split():
        np.testing.assert_array_equal(samples.arrays["image"], data)
    assert_measured_on(found.source, data)


def test_one_sample_is_enough_for_statistics_beside_inputs(model: Path) -> None:
    source, inputs = read_source(model), samples_of(pictures(20))
    found = stage(source, pictures(1), inputs)
    assert "one sample" in found.warnings[0]
    repair, verify = found.samples.split()
    assert len(repair) == len(verify) == 10
    assert found.source.statistics is not None


def test_not_data_aware_they_only_correct_and_verify(model: Path) -> None:
    source, data = read_source(model), pictures(20)
    found = stage(source, data, data_aware=False)
    assert found.source.statistics is None
    assert found.in_sequence is None
    repair, verify = found.samples.split()
    np.testing.assert_array_equal(repair.arrays["image"], data[0::2])
    np.testing.assert_array_equal(verify.arrays["image"], data[1::2])


@pytest.mark.parametrize("known", [True, False])
def test_halves_of_a_reader(model: Path, tmp_path: Path, known: bool) -> None:
    """A file knows how many samples it holds, a generator does not."""
    data, labels = pictures(11), np.arange(11)
    spec = input_spec(read_source(model))
    path = save_npz(tmp_path / "data.npz", image=data, labels=labels)
    reader = open_data(path if known else (lambda: zip(data, labels, strict=True)), spec)
    for half, expected in zip(reader.halves(), (data[0::2], data[1::2]), strict=True):
        found = np.concatenate([feeds["image"][:n] for feeds, n in half.batches()])
        np.testing.assert_array_equal(found, expected)
        assert len(half) == len(expected)
    assert reader.halves()[1].labels is not None
    np.testing.assert_array_equal(reader.halves()[1].labels, labels[1::2])
    few = reader.limited(4).halves()
    assert [len(half) for half in few] == [2, 2]


def build(model: Path, folder: Path, **options: Any) -> Artifact:
    usual: dict[str, Any] = {"max_error": 1.0, "threads": 1, "store": folder / "store.sqlite3"}
    return api.build(model, folder / "fast.onnx", **{**usual, **options})


def test_a_build_is_data_aware_by_default(model: Path, tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    data = save_npz(tmp_path / "data.npz", image=pictures(96), labels=np.zeros(96, np.int64))
    plain = build(model, tmp_path, plan=GIVEN, calib=CalibrationData(data, data_aware=False))
    aware = build(model, tmp_path, plan=GIVEN, calib=data)
    assert aware.plan is not None
    assert plain.plan is not None
    assert plain.plan.statistics_sha256 is None
    assert not plain.plan.sequential
    assert aware.plan.statistics_sha256 is not None
    assert aware.plan.sequential
    assert aware.comparison.samples == plain.comparison.samples == 48
    assert aware.comparison.accuracy_before is not None
    assert aware.verified
    assert aware.comparison.error < 0.9 * plain.comparison.error
    sidecar = read_sidecar(aware.path)
    assert sidecar is not None
    assert sidecar["plan"]["sequential"] is True
    assert sidecar["plan"]["layers"]["conv1"]["error"] == aware.plan.layers["conv1"].candidate.error


def test_a_plan_of_samples_from_python(model: Path, tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    made = api.plan(
        model,
        calib=lambda: iter(pictures(20)),
        latency_budget=0.6,
        threads=1,
        store=tmp_path / "store.sqlite3",
    )
    assert made.statistics_sha256 is not None
    assert made.network is not None
    assert made.network.verified
    assert not made.sequential


def refused(model: Path, folder: Path, message: str, **options: Any) -> None:
    """Before anything was measured, and nothing was written."""
    with pytest.raises(TdcError, match=message):
        build(model, folder, **options)
    assert not (folder / "fast.onnx").exists()


def test_what_cannot_calibrate_is_refused_first(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: Any, **__: Any) -> None:
        raise AssertionError("work was begun")

    for name in ("evaluate.compare", "evaluate.compare_fresh", "builder.make_plan"):
        monkeypatch.setattr(f"tdc_deploy.{name}", work)
    monkeypatch.setattr(OnnxRuntimeBackend, "measure", work)
    monkeypatch.setattr("tdc_calibration.stage.calibrate", work)
    data = save_npz(tmp_path / "data.npz", image=pictures(20))
    broken = pictures(20)
    broken[3] = np.nan
    refused(model, tmp_path, "no data at", calib=tmp_path / "none.npz")
    refused(model, tmp_path, "both to calibrate and to verify", calib=data, inputs=data)
    refused(model, tmp_path, "NaN", calib=save_npz(tmp_path / "nan.npz", image=broken))
    refused(model, tmp_path, "7 samples", calib=save_npz(tmp_path / "7.npz", image=pictures(7)))
    wrong = save_npz(tmp_path / "wrong.npz", image=pictures(20)[:, :3])
    refused(model, tmp_path, "shape", calib=wrong)
    asked = CalibrationData(data, preprocessing=Preprocessing())
    refused(model, tmp_path, "for images only", calib=asked)
    inputs = save_npz(tmp_path / "inputs.npz", image=pictures(3))
    refused(model, tmp_path, "3 samples", calib=data, inputs=inputs)


def test_statistics_of_a_file_are_those_that_were_measured(model: Path, tmp_path: Path) -> None:
    source, inputs = read_source(model), samples_of(pictures(20, seed=2))
    file = tmp_path / "model.stats"
    calibrate(source, pictures(20), file)
    found = stage(source, file, inputs)
    again = stage(source, pictures(20), inputs)
    assert found.source.statistics.sha256 == again.source.statistics.sha256
    for name, moment in again.source.statistics.moments.items():
        np.testing.assert_array_equal(found.source.statistics.moments[name], moment)
    repair, verify = found.samples.split()
    np.testing.assert_array_equal(repair.arrays["image"], inputs.arrays["image"][0::2])
    np.testing.assert_array_equal(verify.arrays["image"], inputs.arrays["image"][1::2])


def test_statistics_of_a_file_that_cannot_serve(model: Path, tmp_path: Path) -> None:
    source, inputs = read_source(model), samples_of(pictures(20))
    file = tmp_path / "model.stats"
    calibrate(source, pictures(8), file)
    with pytest.raises(TdcError, match="no samples to verify on"):
        stage(source, file)
    for asked in ({"labels": model}, {"samples": 3}, {"data_aware": False}):
        with pytest.raises(TdcError, match="which holds statistics"):
            stage(source, file, inputs, **asked)
    other = read_source(save_model(small_cnn(size=SIZE, seed=1), tmp_path / "other.onnx"))
    with pytest.raises(TdcError, match="statistics of a model"):
        stage(other, file, inputs)


@pytest.mark.parametrize("data_aware", [True, False])
def test_the_same_samples_cannot_verify_wherever_they_are(
    model: Path, tmp_path: Path, data_aware: bool
) -> None:
    """Statistics of the inputs, a copy of them, or the same from Python."""
    source, data = read_source(model), pictures(20)
    inputs = samples_of(data.copy())
    file = tmp_path / "model.stats"
    calibrate(source, data, file)
    copy = save_npz(tmp_path / "copy.npz", image=data)
    others = [copy, lambda: iter(data)]
    for given in [file, *others] if data_aware else others:
        with pytest.raises(TdcError, match="that calibration does not see"):
            stage(source, given, inputs, data_aware=data_aware)
    other = pictures(20, seed=2)
    assert stage(source, copy, samples_of(other), data_aware=data_aware).samples is not None
    other[7] = data[11]
    with pytest.raises(TdcError, match="1 of 20 of which are samples of"):
        stage(source, copy, samples_of(other), data_aware=data_aware)


def test_statistics_of_some_of_the_inputs_are_refused(model: Path, tmp_path: Path) -> None:
    source, file = read_source(model), tmp_path / "model.stats"
    calibrate(source, pictures(20), file, samples=12)
    with pytest.raises(TdcError, match=r"12 of 20 of which are samples of .*model\.stats"):
        stage(source, file, samples_of(pictures(20)))


def test_at_most_so_many_samples(model: Path) -> None:
    found = stage(read_source(model), lambda: iter(pictures(40)), samples=20)
    assert [len(samples) for samples in found.samples.split()] == [10, 10]


def test_a_generator_is_gone_through_once_only(model: Path) -> None:
    def once() -> Iterator[NDArray[np.float32]]:
        yield from pictures(20)

    with pytest.raises(TdcError, match=r"once|again"):
        stage(read_source(model), once())
