"""Builds that are interrupted, and builds of the same model again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tdc_deploy.profiling.store import Store
from tests.builders import images, save_npz
from tests.building.jobs import BUDGET, ROUGH, SAMPLES, Job
from tests.fakes import FakeTime


def test_an_interrupted_build_leaves_no_file_and_keeps_what_was_measured(
    job: Job, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tdc_deploy.probes.compare_outputs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            job.build(latency_budget=BUDGET)
    assert job.written() == []
    measured = fake_time.measured
    with Store(job.store) as store:
        assert len(store) == measured >= 10
    artifact = job.build(latency_budget=BUDGET)
    assert artifact.plan is not None
    assert artifact.plan.measurements == 0
    assert fake_time.measured == measured


def test_an_interrupt_while_writing_leaves_no_file(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.build(plan=ROUGH, max_error=1.0)
    assert job.written() == []


def test_building_again_measures_nothing_but_the_result(job: Job, fake_time: FakeTime) -> None:
    first = job.build(latency_budget=BUDGET)
    assert first.plan is not None
    assert first.plan.measurements > 0
    content = job.output.read_bytes()
    fake_time.measured = fake_time.compared = 0
    second = job.build(latency_budget=BUDGET)
    assert second.plan is not None
    assert second.plan.measurements == 0
    assert fake_time.measured == 0
    assert fake_time.compared == 1  # the promise is checked every time
    assert second.plan.selection == first.plan.selection
    assert job.output.read_bytes() == content


def test_other_inputs_are_tried_anew(job: Job, fake_time: FakeTime) -> None:
    job.plan(latency_budget=BUDGET)
    compared = fake_time.compared
    job.plan(latency_budget=BUDGET)
    assert fake_time.compared == compared
    save_npz(job.inputs, image=images(SAMPLES, seed=7))
    assert job.plan(latency_budget=BUDGET).measurements == 0
    assert fake_time.compared > compared


def test_measurements_go_to_the_cache_by_default(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TDC_DEPLOY_CACHE", str(tmp_path / "cache"))
    assert job.plan(store=None).measurements > 0
    names = {path.name for path in (tmp_path / "cache").iterdir()}
    assert names - {"measurements.sqlite3.lock"} == {"measurements.sqlite3"}
    assert not job.store.exists()
