"""Builds with --precision int8, in fake time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tdc_calibration.int8 import computed_in, schemes_of_machine
from tdc_calibration.readback import operators_run, weighted_counts

from tdc_deploy.errors import TdcError
from tests.builders import LAYERS, chain_cnn, float_value, images, linear_model, small_cnn
from tests.building.jobs import ROUGH, Job, assert_source_was_shipped, job_of, run, sidecar_of
from tests.fakes import FakeTime

COUNT = 32


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime(monkeypatch)
    fake.int8_speed = 4.0
    return fake


def job_with(folder: Path, model: onnx.ModelProto, labels: bool = False) -> Job:
    job = job_of(folder, model, image=images(COUNT))
    if labels:
        classes = run(job.model, image=images(COUNT)).argmax(1)
        np.savez(job.inputs, image=images(COUNT), labels=classes)
    return job


@pytest.fixture
def job(tmp_path: Path, fake_time: FakeTime) -> Job:
    del fake_time
    return job_with(tmp_path, small_cnn())


def forms_of(artifact: Any) -> dict[str, dict[str, Any]]:
    forms: dict[str, dict[str, Any]] = sidecar_of(artifact)["forms"]
    return forms


def planted() -> onnx.ModelProto:
    """`small_cnn` with a channel that is always zero, and weights of 1000 for it in conv3: in float32 that
    is nothing, in 8 bits all its other weights round to zero.
    """
    model = small_cnn()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name in ("conv2.weight", "conv2.bias"):
            values[0] = 0
        elif tensor.name == "conv3.weight":
            values[:, 0] = 1000
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def test_the_fastest_form_within_the_limits_is_shipped(job: Job) -> None:
    artifact = job.build(precision="int8")
    forms = forms_of(artifact)
    assert list(forms) == ["tucker fp32", "dense int8", "tucker int8"]
    assert artifact.decision == "compressed"
    assert [name for name, form in forms.items() if form["shipped"]] == ["tucker int8"]
    assert forms["tucker int8"]["ratio"] == artifact.ratio.value
    assert artifact.ratio.value == min(form["ratio"] for form in forms.values())
    assert artifact.comparison.error <= 0.3


def test_what_is_shipped_runs_in_8_bits(job: Job) -> None:
    artifact = job.build(precision="int8")
    model = onnx.load(str(artifact.path))
    assert set(computed_in(model).values()) == {"int8"}
    counts = weighted_counts(operators_run(model))
    assert counts["float"] == 0
    assert counts["int8"] >= 4
    sidecar = sidecar_of(artifact)
    assert sidecar["forms"]["tucker int8"]["operators"] == counts
    assert sidecar["precision"] == ["int8"]
    chosen = [layer for layer in sidecar["plan"]["layers"].values() if layer["form"] != "dense"]
    assert chosen
    assert all(layer["implementation"] == "native" for layer in chosen)
    assert {layer["precision"] for layer in sidecar["plan"]["layers"].values()} == {"int8"}


def test_dense_int8_is_shipped_where_no_decomposition_keeps_the_limit(
    tmp_path: Path, fake_time: FakeTime
) -> None:
    del fake_time
    job = job_with(tmp_path, small_cnn(decay=0.0))  # no low rank fits
    artifact = job.build(precision="int8", max_error=0.15)
    assert artifact.decision == "converted"
    assert artifact.ratio.value == 0.25
    assert "dense int8" in artifact.reason
    assert artifact.plan is None


def test_float32_is_shipped_where_int8_is_not_faster(job: Job, fake_time: FakeTime) -> None:
    fake_time.int8_speed = 0.5
    artifact = job.build(precision="int8", plan=ROUGH, max_error=10.0)
    assert artifact.decision == "compressed"
    assert forms_of(artifact)["tucker fp32"]["shipped"]
    assert "int8 network is not measurably faster" in artifact.reason
    assert sidecar_of(artifact)["precision"] == ["float32"]


def test_the_source_is_shipped_where_nothing_is_faster(job: Job, fake_time: FakeTime) -> None:
    fake_time.ratio = (1.1, 1.0, 1.2)
    artifact = job.build(precision="int8", plan=ROUGH, max_error=10.0)
    assert_source_was_shipped(job, artifact)
    assert "dense int8: 1.100, refused" in artifact.reason
    assert not any(form["shipped"] for form in forms_of(artifact).values())


def test_ranks_are_planned_by_int8_times(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense layer is in INT8 too, and INT8 layers are measured under keys of their own."""
    asked: list[str] = []
    from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend

    original = OnnxRuntimeBackend.describe

    def describe(backend: OnnxRuntimeBackend) -> dict[str, str]:
        found = original(backend)
        asked.append(found["precision"])
        return found

    monkeypatch.setattr(OnnxRuntimeBackend, "describe", describe)
    artifact = job.build(precision="int8")
    assert artifact.plan is not None
    unsigned, signed = (f"int8 ({scheme})" for scheme in schemes_of_machine())
    assert artifact.plan.backend["precision"] == unsigned
    assert set(asked) == {
        "fp32",
        unsigned,
        signed,
    }


def test_the_budget_is_a_share_of_the_sources_time_beside_int8s(
    job: Job, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source alone was measured while the machine was busy, and seemed three times as slow."""
    from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend

    measure = OnnxRuntimeBackend.measure

    def busy(backend: OnnxRuntimeBackend, model: Any, *rest: Any) -> Any:
        timing = measure(backend, model, *rest)
        return replace(timing, median=3 * timing.median) if isinstance(model, Path) else timing

    monkeypatch.setattr(OnnxRuntimeBackend, "measure", busy)
    del fake_time
    artifact = job.build(precision="int8", latency_budget=0.2)
    # Dense INT8 takes 0.25, and float32 much more for its error.
    assert 0.1 < forms_of(artifact)["tucker int8"]["ratio"] <= 0.2
    assert artifact.plan is not None and artifact.plan.network is not None
    assert not any("budget" in warning for warning in artifact.warnings)
    assert artifact.plan.network.ratio == pytest.approx(artifact.ratio.value, rel=0.01)


def test_a_second_build_measures_nothing_again(job: Job, fake_time: FakeTime) -> None:
    first = job.build(precision="int8")
    measured = fake_time.measured
    again = job.build(precision="int8", output=job.folder / "again.onnx")
    assert fake_time.measured == measured
    assert again.plan is not None
    assert first.plan is not None
    assert again.plan.layers == first.plan.layers


def test_a_planted_layer_falls_back_and_no_other(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    job = job_with(tmp_path, planted())
    artifact = job.build(precision="int8", plan=ROUGH, max_error=0.15)
    form = forms_of(artifact)["dense int8"]
    assert form["float_layers"] == ["conv3"]
    assert artifact.decision == "converted"
    found = computed_in(onnx.load(str(artifact.path)))
    assert {name for name, kind in found.items() if kind == "fp32"} == {"conv3"}
    assert artifact.comparison.error <= 0.15


def test_the_limit_of_accuracy_holds_for_every_form(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    job = job_with(tmp_path, planted(), labels=True)
    options: dict[str, Any] = {"plan": ROUGH, "precision": "int8", "max_error": 10.0}
    artifact = job.build(**options, max_accuracy_drop=0.0)
    assert artifact.comparison.accuracy_after == artifact.comparison.accuracy_before == 1.0
    assert "conv3" in forms_of(artifact)["dense int8"]["float_layers"]
    free = job.build(**options, output=job.folder / "free.onnx")
    assert free.ratio.value < artifact.ratio.value
    assert free.comparison.accuracy_after is not None
    assert free.comparison.accuracy_after < 1.0


def test_a_limit_of_accuracy_holds_in_float32_too(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    job = job_with(tmp_path, small_cnn(), labels=True)
    artifact = job.build(plan=ROUGH, max_error=10.0, max_accuracy_drop=0.0)
    assert_source_was_shipped(job, artifact)
    assert "the accuracy drops by" in artifact.reason


@pytest.mark.parametrize(
    ("labels", "logits", "message"),
    [
        (np.arange(COUNT) % 10 + 1, True, "labels from 1 to 10\\n.*0 to 9"),
        (np.arange(COUNT) % 10 - 1, True, "labels from -1 to 8"),
        (np.arange(COUNT) % 10, False, r"outputs of \(1, 48, 24, 24\)\n.*class scores"),
    ],
)
def test_a_limit_of_accuracy_that_cannot_be_measured_is_refused(
    tmp_path: Path, fake_time: FakeTime, labels: Any, logits: bool, message: str
) -> None:
    model = small_cnn()
    if not logits:
        del model.graph.output[:]
        model.graph.output.append(float_value("conv3.out", (1, 48, 24, 24)))
    job = job_of(tmp_path, model, image=images(COUNT), labels=labels)
    with pytest.raises(TdcError, match=message):
        job.build(plan=ROUGH, max_error=10.0, max_accuracy_drop=1.0)
    assert fake_time.compared == 0
    assert job.written() == []


def test_a_given_plan_is_built_in_both(job: Job) -> None:
    artifact = job.build(plan=ROUGH, precision="int8", max_error=10.0)
    forms = forms_of(artifact)
    assert forms["tucker int8"]["shipped"]
    assert artifact.plan is not None
    assert sorted(artifact.plan.selection) == sorted(LAYERS)
    assert len(computed_in(onnx.load(str(artifact.path)))) == 3 * len(LAYERS) + 1


def test_chains_that_came_in_are_quantised_as_they_are(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    job = job_with(tmp_path, chain_cnn())
    artifact = job.build(precision="int8")
    assert artifact.decision == "converted"
    found = computed_in(onnx.load(str(artifact.path)))
    assert {"conv2.first", "conv2.core", "conv2.last"} <= set(found)
    assert set(found.values()) == {"int8"}


@pytest.mark.parametrize("calibrator", ["minmax", "entropy", "percentile", "mse"])
def test_the_calibrator_that_is_asked_for_is_used(job: Job, calibrator: str) -> None:
    artifact = job.build(plan=ROUGH, precision="int8", max_error=10.0, calibrator=calibrator)
    assert {f["calibrator"] for f in forms_of(artifact).values() if "calibrator" in f} == {
        calibrator
    }


def test_few_samples_are_warned_of(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    job = job_of(tmp_path, small_cnn())
    artifact = job.build(precision="int8", max_error=10.0, plan=ROUGH)
    assert any("calibrated on 8 samples" in warning for warning in artifact.warnings)


def test_a_model_without_convolutions_is_quantised(tmp_path: Path, fake_time: FakeTime) -> None:
    fake_time.ratio = (0.5, 0.4, 0.6)
    rng = np.random.default_rng(0)
    job = job_of(tmp_path, linear_model(), image=rng.standard_normal((COUNT, 32), np.float32))
    with pytest.raises(TdcError, match="no convolution"):
        job.build(precision="int8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "--precision is 'int4'"),
        ({"precision": "int8", "calibrator": "best"}, "--calibrator is 'best'"),
        ({"calibrator": "mse"}, "--calibrator with --precision fp32"),
        ({"precision": "int8", "inputs": None}, "--precision int8 without data"),
        ({"precision": "int8", "max_accuracy_drop": 0.5}, "inputs without labels"),
        ({"max_accuracy_drop": -1.0}, "max_accuracy_drop is -1.0"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_measured(
    job: Job, fake_time: FakeTime, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TdcError, match=message):
        job.build(**options)
    assert fake_time.measured == fake_time.compared == 0
    assert job.written() == []


def test_a_refused_build_writes_nothing(job: Job) -> None:
    with pytest.raises(TdcError, match="error is"):
        job.build(precision="int8", plan=ROUGH, max_error=10.0, fail_above=1e-6)
    assert job.written() == []


def test_calibration_data_calibrate_int8_and_decompose_its_layers(
    tmp_path: Path, fake_time: FakeTime
) -> None:
    del fake_time
    job = job_with(tmp_path, small_cnn())
    data = tmp_path / "calib.npz"
    np.savez(data, image=images(40, seed=5))
    artifact = job.build(precision="int8", plan=ROUGH, max_error=10.0, calib=data)
    form = forms_of(artifact)["tucker int8"]
    assert form["shipped"]
    assert form["calibration_samples"] == 40
    assert artifact.comparison.samples == COUNT  # all of the inputs verify
    assert artifact.plan is not None
    assert artifact.plan.statistics_sha256 is not None


def test_a_network_whose_layers_all_fell_back_is_the_float_network(
    job: Job, fake_time: FakeTime
) -> None:
    """By noise it may seem faster than what came in."""
    fake_time.ratio = (0.9, 0.85, 0.95)
    artifact = job.build(precision="int8", max_error=1e-6)
    assert_source_was_shipped(job, artifact)
    form = forms_of(artifact)["dense int8"]
    assert set(form["float_layers"]) > {"conv1", "conv2", "conv3"}
    assert "every layer stays float32, for the limits: it is a float32 network" in artifact.reason


def test_another_qdq_form_is_measured_anew(
    job: Job, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times of single INT8 layers are kept by its revision."""
    job.build(precision="int8")
    fake_time.measured = 0
    job.build(precision="int8")
    assert fake_time.measured == 0
    monkeypatch.setattr("tdc_calibration.int8_choices.REVISION", 99)
    job.build(precision="int8")
    assert fake_time.measured > 5
