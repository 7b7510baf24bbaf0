"""Which layers stay float32 in a float16 build."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from tdc_calibration.half_network import HalfNetwork

from tdc_deploy import evaluate
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.samples import Samples
from tdc_deploy.types import Ratio
from tests.builders import images, small_cnn
from tests.building.jobs import ROUGH, Job, job_of, sidecar_of
from tests.fakes import FakeTime
from tests.helpers import network, run

LARGE = 3e5  # beyond float16's 65504


def scaled(**factors: float) -> onnx.ModelProto:
    """`small_cnn` with some of its weights multiplied."""
    model = small_cnn()
    for tensor in model.graph.initializer:
        factor = factors.get(tensor.name.replace(".", "_"))
        if factor is not None:
            values = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return model


def half_of(model: onnx.ModelProto) -> HalfNetwork:
    return HalfNetwork(network(model), Samples({"image": images(8)}, 1), OnnxRuntimeBackend(1))


def float_convs(model: onnx.ModelProto) -> set[str]:
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and types[node.input[1]] == TensorProto.FLOAT
    }


def test_a_sane_network_is_all_float16() -> None:
    half = half_of(small_cnn())
    assert half.overflowing == []
    assert float_convs(half.model()) == set()
    assert max(half.error_alone(layer) for layer in half.layers) <= 0.01


def test_activations_near_the_end_of_the_range_stay_float32() -> None:
    """conv2 puts out some 1e6 and conv3 takes it back: both see what float16 cannot hold."""
    model = scaled(conv2_weight=2e4, conv2_bias=2e4, conv3_weight=1 / 2e4)
    half = half_of(model)
    assert {"conv2", "relu2", "conv3"} <= set(half.overflowing)
    assert "conv1" not in half.overflowing
    made = half.model()
    assert float_convs(made) == {"conv2", "conv3"}
    x = images(1)
    exact, found = run(model, {"image": x})[0], run(made, {"image": x})[0]
    # conv1 alone is rounded, at 2^-11 in its input, weights and output.
    assert np.abs(found - exact).max() <= 0.01 * np.abs(exact).max()


def test_a_weight_beyond_the_range_stays_float32() -> None:
    model = small_cnn()
    for tensor in model.graph.initializer:
        if tensor.name == "conv1.weight":
            values = numpy_helper.to_array(tensor).copy()
            values[0, 0, 0, 0] = LARGE
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    half = half_of(model)
    assert "conv1" in half.overflowing
    half.model()


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


@pytest.fixture
def job(tmp_path: Path, fake_time: FakeTime) -> Job:
    del fake_time
    return job_of(tmp_path, small_cnn())


def forms_of(artifact: Any) -> dict[str, dict[str, Any]]:
    forms: dict[str, dict[str, Any]] = sidecar_of(artifact)["forms"]
    return forms


def test_float16_that_is_no_faster_is_not_shipped(job: Job) -> None:
    """In fake time it is as fast as float32, which comes first."""
    artifact = job.build(precision="fp16", plan=ROUGH, max_error=1.0)
    forms = forms_of(artifact)
    assert list(forms) == ["tucker fp32", "tucker fp16"]
    assert forms["tucker fp32"]["shipped"]
    assert sidecar_of(artifact)["precision"] == ["float32"]
    assert forms["tucker fp16"]["float_layers"] == []
    assert forms["tucker fp16"]["ratio"] == forms["tucker fp32"]["ratio"]


def test_float16_that_is_faster_is_shipped(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    original = FakeTime._ms

    def ms(fake: FakeTime, model: Any, feeds: Any) -> float:
        loaded = onnx.load(str(model)) if isinstance(model, Path) else model
        halved = any(t.data_type == TensorProto.FLOAT16 for t in loaded.graph.initializer)
        return original(fake, model, feeds) / (2 if halved else 1)

    monkeypatch.setattr(FakeTime, "_ms", ms)
    artifact = job.build(precision="fp16", plan=ROUGH, max_error=1.0)
    assert forms_of(artifact)["tucker fp16"]["shipped"]
    assert sidecar_of(artifact)["precision"] == ["float16"]
    assert artifact.plan is not None
    assert {choice.candidate.precision for choice in artifact.plan.layers.values()} == {"fp16"}
    assert {value["dtype"] for value in sidecar_of(artifact)["inputs"]} == {"float32"}


def test_a_network_whose_layers_all_stay_float32_is_the_float_network(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By noise it may seem faster."""
    monkeypatch.setattr("tdc_calibration.half_choice.MOST_ERROR", -1.0)
    measured, later = vars(evaluate)["compare_fresh"], itertools.count()

    def faster_each_time(*arguments: Any) -> Ratio:
        noise = 0.9 ** next(later)
        found: Ratio = measured(*arguments)
        return replace(found, value=noise * found.value, upper=noise * found.upper)

    monkeypatch.setattr(evaluate, "compare_fresh", faster_each_time)
    artifact = job.build(precision="fp16", plan=ROUGH, max_error=1.0)
    forms = forms_of(artifact)
    assert forms["tucker fp16"]["ratio"] < forms["tucker fp32"]["ratio"]
    assert forms["tucker fp32"]["shipped"]
    assert "every layer stays float32" in artifact.reason
