"""The artifact: what it needs, and its inputs and outputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from tdc_deploy.runtime.session import load
from tdc_deploy.verify import relative_error
from tests.builders import images, shifts, small_cnn
from tests.building.jobs import BUDGET, MAX_ERROR, SAME, SAMPLES, Job, call, job_of, run, sidecar_of
from tests.fakes import FakeTime


def test_the_artifact_runs_in_a_bare_onnxruntime_as_in_a_session(job: Job) -> None:
    artifact = job.build(latency_budget=BUDGET)
    image = images(4, seed=5)
    bare = run(artifact.path, image=image)
    with load(artifact.path) as session:
        rows = [call(session, image[i : i + 1]) for i in range(4)]
    assert np.abs(np.concatenate(rows) - bare).max() <= SAME


def test_the_artifact_needs_no_other_file(job: Job) -> None:
    artifact = job.build(latency_budget=BUDGET)
    expected = run(artifact.path, image=images(2))
    moved = job.folder / "elsewhere"
    moved.mkdir()
    shutil.move(artifact.path, moved / "x.onnx")
    job.model.unlink()
    assert np.array_equal(run(moved / "x.onnx", image=images(2)), expected)


def save_external(model: onnx.ModelProto, path: Path) -> None:
    """Write a model with its weights in a file beside it."""
    weights = path.with_suffix(".data")
    weights.unlink(missing_ok=True)  # onnx would append to it
    onnx.save(model, str(path), save_as_external_data=True, location=weights.name, size_threshold=0)


@pytest.mark.parametrize("max_error", [0.0, MAX_ERROR])
def test_weights_beside_the_model_are_taken_into_the_artifact(job: Job, max_error: float) -> None:
    save_external(small_cnn(), job.model)
    held_out = images(SAMPLES)[1::2]
    expected = run(job.model, image=held_out)
    artifact = job.build(max_error=max_error)
    assert artifact.decision == ("source" if max_error == 0 else "compressed")
    job.model.with_suffix(".data").unlink()
    # Float32 rounding of another session.
    assert relative_error(expected, run(artifact.path, image=held_out)) <= max_error + 1e-4


def test_other_weights_beside_the_same_file_are_another_model(job: Job) -> None:
    save_external(small_cnn(seed=0), job.model)
    content, first = job.model.read_bytes(), job.plan(latency_budget=BUDGET)
    save_external(small_cnn(seed=1), job.model)
    assert job.model.read_bytes() == content
    assert job.plan(latency_budget=BUDGET).model_sha256 != first.model_sha256


def test_a_dynamic_batch_stays_dynamic(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    job = job_of(tmp_path, small_cnn(batch="N"))
    artifact = job.build(latency_budget=BUDGET)
    assert artifact.decision == "compressed"
    sidecar = sidecar_of(artifact)
    assert sidecar["inputs"][0]["shape"] == ["N", 32, 24, 24]
    assert sidecar["outputs"][0]["shape"][1] == 10
    assert not isinstance(sidecar["outputs"][0]["shape"][0], int)
    assert sidecar["planned_shapes"] == {"image": [1, 32, 24, 24]}
    image = images(5, seed=5)
    with load(artifact.path) as session:
        together = call(session, image)
        apart = np.concatenate([call(session, image[i : i + 1]) for i in range(5)])
    # Another batch may be summed in another order; logits are of size 10.
    assert np.abs(together - apart).max() <= 1e-4


def test_a_dynamic_batch_is_planned_at_the_given_one(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    # Three batches of four for repair and verification each, the last one not full.
    job = job_of(tmp_path, small_cnn(batch="N"), image=images(22))
    shapes = {"image": (4, 32, 24, 24)}
    artifact = job.build(latency_budget=BUDGET, shapes=shapes)
    assert artifact.decision == "compressed"
    assert artifact.comparison.samples == 11
    assert sidecar_of(artifact)["planned_shapes"] == {"image": [4, 32, 24, 24]}
    with load(artifact.path) as session:
        assert call(session, images(1)).shape == (1, 10)


def test_several_inputs_and_outputs(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    model = small_cnn(two_inputs=True, two_outputs=True)
    job = job_of(tmp_path, model, image=images(SAMPLES), shift=shifts(SAMPLES))
    artifact = job.build(latency_budget=BUDGET)
    assert artifact.decision == "compressed"
    held_out = {"image": images(SAMPLES)[1::2], "shift": shifts(SAMPLES)[1::2]}
    before, after = (run(path, **held_out) for path in (job.model, artifact.path))
    # The largest of the outputs' errors; the first output's is one of them.
    assert relative_error(before, after) <= artifact.comparison.error + 1e-4
    with load(artifact.path) as session:
        result = session(images(1), shift=shifts(1))
    assert isinstance(result, dict)
    assert list(result) == ["logits", "features"]


def test_a_fixed_batch(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    job = job_of(tmp_path, small_cnn(batch=4), image=images(22))
    artifact = job.build(latency_budget=BUDGET)
    assert artifact.decision == "compressed"
    assert artifact.comparison.samples == 11
    assert sidecar_of(artifact)["inputs"][0]["shape"] == [4, 32, 24, 24]
