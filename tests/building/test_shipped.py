"""What is shipped: the compressed network, or the model that came in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.files import files_sha256
from tdc_deploy.tucker import Factors, decompose
from tdc_deploy.verify import relative_error
from tests.builders import LAYERS, images, save_npz, small_cnn
from tests.building.jobs import (
    BUDGET,
    MAX_ERROR,
    ROUGH,
    SAMPLES,
    Job,
    assert_source_was_shipped,
    job_of,
    operators,
    run,
    sidecar_of,
)
from tests.fakes import FakeTime


def test_a_network_that_is_faster_and_close_enough_is_shipped(job: Job) -> None:
    artifact = job.build(latency_budget=BUDGET)
    assert artifact.decision == "compressed"
    assert artifact.comparison.error <= MAX_ERROR
    assert artifact.ratio.value <= BUDGET
    assert artifact.verified
    assert artifact.warnings == ()
    assert artifact.path == job.output
    assert job.written() == ["fast.onnx", "fast.onnx.json"]
    onnx.checker.check_model(str(artifact.path))


def test_every_chain_is_fused(job: Job) -> None:
    found = operators(job.build(plan=ROUGH, max_error=1.0).path)
    # The last one takes the residual addition and the activation with it.
    assert sorted(op for op in found if op.startswith("Tucker")) == [
        "TuckerConv",
        "TuckerConv",
        "TuckerConvAdd",
    ]
    assert not {"Conv", "Relu", "Add"} & set(found)


def test_the_figures_in_the_sidecar_are_those_of_the_file(job: Job) -> None:
    artifact = job.build(latency_budget=BUDGET)
    sidecar = sidecar_of(artifact)
    held_out = images(SAMPLES)[1::2]  # the others repaired the network
    error = relative_error(run(job.model, image=held_out), run(artifact.path, image=held_out))
    # The same sums in another library's session: float32 rounding.
    assert abs(sidecar["verification"]["error"] - error) <= 1e-4
    assert sidecar["verification"]["samples"] == len(held_out)
    assert sidecar["accuracy"] == "VERIFIED"
    assert sidecar["source"]["sha256"] == files_sha256([job.model])
    assert sidecar["artifact"]["sha256"] == files_sha256([job.output])
    assert sorted(sidecar["plan"]["layers"]) == list(LAYERS)
    assert sidecar["network"]["value"] == artifact.ratio.value


def test_labels_give_accuracies(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    job = job_of(tmp_path, small_cnn())
    labels = run(job.model, image=images(SAMPLES)).argmax(1)
    labels[1] = (labels[1] + 1) % 10  # one of the eight that verify
    save_npz(job.inputs, image=images(SAMPLES), labels=labels)
    verification = sidecar_of(job.build(latency_budget=0.9))["verification"]
    assert verification["accuracy_before"] == 7 / 8
    assert verification["accuracy_after"] is not None
    assert verification["top1_agreement"] is not None


@pytest.mark.parametrize("ratio", [(0.99, 0.97, 1.01), (1.2, 1.1, 1.3), (0.98, 0.96, 1.0)], ids=str)
def test_the_source_is_shipped_where_nothing_is_measurably_faster(
    job: Job, fake_time: FakeTime, ratio: tuple[float, float, float]
) -> None:
    fake_time.ratio = ratio
    artifact = job.build(plan=ROUGH, max_error=1.0)
    assert_source_was_shipped(job, artifact)
    assert "not measurably faster" in artifact.reason
    assert f"{ratio[0]:.3f}" in artifact.reason
    assert artifact.ratio.value == ratio[0]


def test_nothing_is_faster_and_no_plan_was_given(job: Job, fake_time: FakeTime) -> None:
    fake_time.ratio = (1.2, 1.1, 1.3)
    artifact = job.build()
    assert_source_was_shipped(job, artifact)
    assert artifact.warnings == ()


@pytest.mark.parametrize("budget", [None, 0.9, BUDGET])
def test_a_plan_is_never_slower_than_the_source(
    job: Job, fake_time: FakeTime, budget: float | None
) -> None:
    fake_time.ratio = (1.2, 1.1, 1.3)
    plan = job.plan(latency_budget=budget)
    assert plan.network is not None
    assert plan.network.ratio <= 1
    assert plan.selection == {}


def test_the_source_is_shipped_where_the_error_is_above_the_limit(job: Job) -> None:
    artifact = job.build(plan=ROUGH, max_error=0.01)
    assert_source_was_shipped(job, artifact)
    assert "error" in artifact.reason
    assert "0.01" in artifact.reason
    assert artifact.comparison.error > 0.01


def test_nothing_fits_an_error_limit_of_zero(job: Job) -> None:
    artifact = job.build(max_error=0.0)
    assert_source_was_shipped(job, artifact)
    assert "nothing could be compressed" in artifact.reason


def test_the_error_limit_overrides_the_budget_with_a_warning(job: Job) -> None:
    artifact = job.build(latency_budget=0.1, max_error=0.1)
    assert artifact.decision == "compressed"
    assert artifact.comparison.error <= 0.1
    assert artifact.ratio.value > 0.1
    assert any("budget of 0.1 was not met" in warning for warning in artifact.warnings)
    assert sidecar_of(artifact)["warnings"] == list(artifact.warnings)


def test_a_budget_that_only_the_source_is_left_for_is_a_warning(job: Job) -> None:
    artifact = job.build(latency_budget=0.5, max_error=0.0)
    assert_source_was_shipped(job, artifact)
    assert any("was not met" in warning for warning in artifact.warnings)


def test_strict_refuses_a_budget_that_is_not_met(job: Job) -> None:
    with pytest.raises(TdcError, match=r"budget of 0\.1 was not met"):
        job.build(latency_budget=0.1, max_error=0.1, strict=True)
    assert job.written() == []


def test_strict_accepts_a_budget_that_is_met(job: Job) -> None:
    assert job.build(latency_budget=BUDGET, strict=True).decision == "compressed"


def test_the_longest_measurement_decides_whether_a_budget_is_met(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trial came out just above the budget, by noise: what was built takes less."""
    from tdc_deploy import evaluate

    compare = vars(evaluate)["compare"]  # in fake time

    def slow(*runners: Any) -> Any:
        ratio = compare(*runners)
        return replace(ratio, value=max(ratio.value, 1.02 * BUDGET))

    monkeypatch.setattr(evaluate, "compare", slow)
    artifact = job.build(latency_budget=BUDGET, max_error=1.0, strict=True)
    assert artifact.decision == "compressed"
    assert artifact.ratio.upper < BUDGET
    assert artifact.warnings == ()
    assert artifact.plan is not None and artifact.plan.missed


def test_an_error_above_fail_above_is_refused(job: Job) -> None:
    with pytest.raises(TdcError, match="error is") as caught:
        job.build(plan=ROUGH, max_error=1.0, fail_above=0.01)
    assert "0.01" in caught.value.expected
    assert job.written() == []


def test_an_error_up_to_fail_above_is_accepted(job: Job) -> None:
    artifact = job.build(plan=ROUGH, max_error=1.0, fail_above=1.0)
    assert artifact.decision == "compressed"
    again = job.build(plan=ROUGH, max_error=1.0, fail_above=artifact.comparison.error)
    assert again.decision == "compressed"


def test_the_source_has_no_error_to_refuse(job: Job) -> None:
    artifact = job.build(plan=ROUGH, max_error=0.01, fail_above=0.0)
    assert artifact.decision == "source"


def test_a_refused_result_leaves_the_old_one(job: Job) -> None:
    job.output.write_bytes(b"old")
    with pytest.raises(TdcError):
        job.build(plan=ROUGH, max_error=1.0, fail_above=0.0)
    assert job.output.read_bytes() == b"old"
    assert job.written() == ["fast.onnx"]


def test_an_accepted_result_replaces_the_old_one(job: Job) -> None:
    job.output.write_bytes(b"old")
    artifact = job.build(latency_budget=BUDGET)
    onnx.checker.check_model(str(artifact.path))
    assert job.written() == ["fast.onnx", "fast.onnx.json"]


def test_the_model_that_came_in_is_not_touched(job: Job) -> None:
    before = job.model.read_bytes()
    job.build(latency_budget=BUDGET)
    assert job.model.read_bytes() == before


def test_a_kernel_that_fits_worse_refined_is_shipped_as_it_was_planned(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(
        weight: Any, form: Any, ranks: Any, refine: bool = False, bases: Any = None
    ) -> Factors:
        factors = decompose(weight, form, ranks, refine, bases)
        if not refine or factors.core is None:
            return factors
        return replace(factors, core=-factors.core)

    monkeypatch.setattr("tdc_deploy.decompositions.decompose", spoiled)
    plan = job.plan(latency_budget=BUDGET)
    artifact = job.build(plan=plan)
    assert artifact.decision == "compressed"
    assert plan.network is not None
    assert abs(artifact.comparison.error - plan.network.error) <= 1e-6  # the same network


@pytest.mark.parametrize("max_error", [1.0, 1e300, np.inf])
def test_a_network_that_puts_out_nan_is_never_shipped(
    job: Job, monkeypatch: pytest.MonkeyPatch, max_error: float
) -> None:
    def broken(*arguments: Any) -> Factors:
        factors = decompose(*arguments)
        assert factors.core is not None
        return replace(factors, core=np.full_like(factors.core, np.nan))

    monkeypatch.setattr("tdc_deploy.decompositions.decompose", broken)
    try:
        artifact = job.build(plan=ROUGH, max_error=max_error)
    except TdcError as error:  # an infinite limit may be refused as such
        assert "max_error is inf" in str(error)
        assert job.written() == []
    else:
        assert_source_was_shipped(job, artifact)
