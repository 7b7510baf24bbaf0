"""What is refused before any work is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.sidecar import sidecar_path
from tests.builders import linear_model
from tests.building.jobs import ROUGH, SAMPLES, Job, job_of
from tests.fakes import FakeTime


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency_budget": 0.5, "speedup": 2.0}, "both latency_budget and speedup"),
        ({"latency_budget": 0.0}, "latency_budget is 0"),
        ({"latency_budget": 1.5}, "latency_budget is 1.5"),
        ({"latency_budget": float("nan")}, "latency_budget is nan"),
        ({"speedup": 0.5}, "speedup is 0.5"),
        ({"speedup": float("nan")}, "speedup is nan"),
        ({"max_error": -0.1}, "max_error is -0.1"),
        ({"max_error": float("nan")}, "max_error is nan"),
        ({"solver": "greedy"}, "solver is 'greedy'"),
        ({"flops_budget": 0.5}, "flops_budget without the tdc solver"),
        (
            {"flops_budget": 0.5, "latency_budget": 0.5, "solver": "tdc"},
            "both flops_budget and latency_budget",
        ),
        ({"theta": 1.0, "solver": "tdc"}, "theta is 1"),
        ({"threads": -1}, "threads is -1"),
        ({"plan": ROUGH, "latency_budget": 0.5}, "both a plan and a budget"),
        ({"plan": ROUGH, "speedup": 2.0}, "both a plan and a budget"),
        ({"fail_above": -0.1}, "fail_above is -0.1"),
        ({"fail_above": float("nan")}, "fail_above is nan"),
        ({"plan": "missing.json"}, "no plan at missing.json"),
        ({"inputs": "missing.npz"}, "no inputs at missing.npz"),
        ({"shapes": {"image": (1, 32, 20, 20)}}, "shape 1x32x20x20"),
        ({"shapes": {"picture": (1, 32, 24, 24)}}, "'picture'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(sorted(value)),
)
def test_bad_values(job: Job, fake_time: FakeTime, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TdcError) as caught:
        job.build(**options)
    assert message in caught.value.received
    assert job.written() == []
    assert fake_time.measured == fake_time.compared == 0


def test_the_output_is_the_input(job: Job) -> None:
    link = job.folder / "link.onnx"
    link.symlink_to(job.model)
    before = job.model.read_bytes()
    for output in (job.model, link):
        with pytest.raises(TdcError, match="would be overwritten"):
            job.build(output=output)
    assert job.model.read_bytes() == before


@pytest.mark.parametrize("name", ["fast.pb", "fast", "fast.onnx.gz"])
def test_a_wrong_suffix(job: Job, fake_time: FakeTime, name: str) -> None:
    with pytest.raises(TdcError, match="output") as caught:
        job.build(output=job.folder / "out" / name)
    assert ".onnx" in caught.value.expected
    assert fake_time.measured == 0


def test_a_missing_folder(job: Job, fake_time: FakeTime) -> None:
    with pytest.raises(TdcError, match="does not exist"):
        job.build(output=job.folder / "nowhere" / "fast.onnx")
    assert fake_time.measured == 0


def test_a_folder_in_the_place_of_the_output_or_the_sidecar(job: Job, fake_time: FakeTime) -> None:
    for path in (job.output, sidecar_path(job.output)):
        path.mkdir()
        with pytest.raises(TdcError, match="is a folder"):
            job.build()
        path.rmdir()
    assert fake_time.measured == 0


def test_a_missing_model(job: Job) -> None:
    job.model.unlink()
    with pytest.raises(TdcError, match="no model file"):
        job.build()


def test_a_model_without_convolutions(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    image = np.random.default_rng(0).standard_normal((SAMPLES, 32)).astype(np.float32)
    job = job_of(tmp_path, linear_model(), image=image)
    with pytest.raises(TdcError, match="no convolution to decompose"):
        job.build()
    assert job.written() == []
