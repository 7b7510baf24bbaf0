"""The inputs that a build verifies on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tdc_deploy.errors import TdcError
from tests.builders import images, save_npz
from tests.building.jobs import BUDGET, ROUGH, SAMPLES, Job, sidecar_of


def test_random_inputs_verify_nothing(job: Job) -> None:
    artifact = job.build(inputs=None, latency_budget=BUDGET)
    assert artifact.decision == "compressed"
    assert not artifact.verified
    assert sidecar_of(artifact)["accuracy"] == "UNVERIFIED"
    assert artifact.plan is not None
    assert artifact.plan.network is not None
    assert not artifact.plan.network.verified


def test_random_inputs_repair_nothing(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the statistics of random inputs are none")

    monkeypatch.setattr("tdc_deploy.evaluate.Repair", refuse)
    assert job.build(inputs=None, plan=ROUGH, max_error=10.0).decision == "compressed"


@pytest.mark.parametrize("call", ["build", "plan"])
def test_neither_inputs_nor_an_error_limit(job: Job, call: str) -> None:
    with pytest.raises(TdcError, match="neither inputs nor an error limit") as caught:
        getattr(job, call)(inputs=None, max_error=None)
    assert "--inputs" in caught.value.fix
    assert job.written() == []


def test_inputs_have_a_default_error_limit(job: Job) -> None:
    artifact = job.build(max_error=None)
    assert artifact.decision == "compressed"
    assert artifact.comparison.error <= 0.1


def test_inputs_that_do_not_fit_leave_nothing(job: Job) -> None:
    save_npz(job.inputs, image=images(SAMPLES, size=20))
    with pytest.raises(TdcError, match="has shape"):
        job.build(latency_budget=BUDGET)
    assert job.written() == []


def test_inputs_that_are_all_the_same_leave_nothing(job: Job) -> None:
    save_npz(job.inputs, image=np.repeat(images(1), SAMPLES, 0))
    with pytest.raises(TdcError, match="same for every input"):
        job.build(latency_budget=BUDGET)
    assert job.written() == []
