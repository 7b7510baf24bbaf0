"""Builds with a plan, made or given."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import onnx
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Evaluator, Trial
from tdc_deploy.files import files_sha256
from tdc_deploy.plan_file import LayerChoice, Plan, read_plan, write_plan
from tdc_deploy.planner import make_plan
from tdc_deploy.types import Candidate, Ranks
from tests.building.jobs import BUDGET, LOW, MAX_ERROR, Job, assert_source_was_shipped, operators


def test_a_plan_and_the_build_with_it(job: Job) -> None:
    plan = job.plan(latency_budget=BUDGET)
    assert plan.network is not None
    assert plan.network.ratio <= BUDGET
    assert plan.network.error <= MAX_ERROR
    assert plan.network.verified
    assert plan.model_sha256 == files_sha256([job.model])
    # In fake time the layers' times do add up to the network's.
    assert abs(plan.network.predicted_ms - plan.network.measured_ms) <= 1e-6
    artifact = job.build(plan=plan)
    assert artifact.decision == "compressed"
    assert artifact.plan == plan
    assert abs(artifact.ratio.value - plan.network.ratio) <= 1e-6
    direct = job.build(latency_budget=BUDGET)
    assert direct.plan is not None
    assert direct.plan.selection == plan.selection


def test_a_plan_from_its_file_edited(job: Job) -> None:
    path = job.folder / "plan.json"
    write_plan(job.plan(latency_budget=BUDGET), path)
    data = json.loads(path.read_text(encoding="utf-8"))
    data["layers"]["conv2"] = {"form": "tucker2", "r_in": 12, "r_out": 20}
    data["layers"]["conv3"] = {"form": "dense"}
    del data["layers"]["conv1"]
    path.write_text(json.dumps(data), encoding="utf-8")
    artifact = job.build(plan=path, max_error=1.0)
    assert artifact.plan is not None
    # The errors of edited layers are those of their kernels.
    assert artifact.plan.layers["conv2"].candidate.error > 0
    assert artifact.plan.selection.keys() == read_plan(path).selection.keys()
    assert operators(artifact.path).count("Conv") == 2
    assert operators(artifact.path).count("TuckerConv") == 1
    (node,) = [n for n in onnx.load(str(artifact.path)).graph.node if n.op_type == "TuckerConv"]
    shapes = {t.name: list(t.dims) for t in onnx.load(str(artifact.path)).graph.initializer}
    assert shapes[node.input[1]] == [12, 48]
    assert shapes[node.input[3]] == [3, 3, 20, 12]
    assert shapes[node.input[5]] == [48, 20]


@pytest.mark.parametrize(
    "candidate",
    [
        Candidate("tucker_in", Ranks(8, 48)),
        Candidate("tucker_out", Ranks(48, 16)),
        Candidate("tucker2", Ranks(7, 9), "fused"),
        Candidate("tucker2", Ranks(48, 48), "fused"),
    ],
    ids=str,
)
def test_every_form_can_be_planned_by_hand(job: Job, candidate: Candidate) -> None:
    plan = Plan({"conv2": LayerChoice(candidate)})
    artifact = job.build(plan=plan, max_error=1.0)
    if candidate.ranks == Ranks(48, 48):  # nothing lost, and slower
        assert artifact.comparison.error <= 1e-4
        assert_source_was_shipped(job, artifact)
    else:
        assert artifact.decision == "compressed"
        assert 1e-4 <= artifact.comparison.error <= 0.5


@pytest.mark.parametrize(
    ("layer", "candidate", "message"),
    [
        ("conv_2", LOW, "conv_2"),
        ("conv2", Candidate("tucker2", Ranks(49, 8), "fused"), "49"),
        ("conv2", Candidate("svd", Ranks(8, 8)), "3x3 kernel"),
    ],
)
def test_a_plan_that_does_not_fit_leaves_nothing(
    job: Job, layer: str, candidate: Candidate, message: str
) -> None:
    with pytest.raises(TdcError, match=message):
        job.build(plan=Plan({layer: LayerChoice(candidate)}))
    assert job.written() == []


def test_a_misspelt_layer_gets_a_suggestion(job: Job) -> None:
    with pytest.raises(TdcError, match="'conv_2'") as caught:
        job.build(plan=Plan({"conv_2": LayerChoice(LOW)}))
    assert caught.value.fix == "did you mean 'conv2'?"
    assert "  " not in caught.value.received


def test_an_empty_plan_ships_the_source(job: Job) -> None:
    assert_source_was_shipped(job, job.build(plan=Plan({})))


def test_the_papers_rule(job: Job) -> None:
    artifact = job.build(solver="tdc", flops_budget=0.5)
    assert artifact.plan is not None
    assert artifact.plan.solver == "tdc"
    assert artifact.decision == "compressed"
    assert artifact.ratio.value <= 0.5
    assert {c.form for c in artifact.plan.selection.values()} == {"tucker2"}


def test_progress_goes_from_nothing_to_all(job: Job) -> None:
    seen: list[tuple[str, int, int]] = []
    job.build(latency_budget=BUDGET, progress=lambda *step: seen.append(step))
    assert len({what for what, _, _ in seen}) >= 3
    assert all(0 <= done <= total for _, done, total in seen)
    assert seen[-1][1] == seen[-1][2]


def test_a_plan_of_another_model_is_said_to_be_one(job: Job) -> None:
    plan = job.plan(latency_budget=BUDGET)
    artifact = job.build(plan=replace(plan, model_sha256="0" * 64), strict=True)
    assert any("another model" in warning for warning in artifact.warnings)


def test_a_plan_that_misses_on_all_inputs_is_made_again(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the plan is tried on may be kinder than the rest of the inputs: here by half."""
    limits: list[float] = []

    def planned(evaluator: Any, store: Any, goal: Any, progress: Any, **more: Any) -> Plan:
        limits.append(goal.max_error)
        return make_plan(evaluator, store, goal, progress, **more)

    measured = Evaluator.trial

    def kinder(evaluator: Evaluator, selection: Any) -> Trial:
        trial = measured(evaluator, selection)
        return replace(trial, error=trial.error / 2)

    monkeypatch.setattr("tdc_deploy.builder.make_plan", planned)
    monkeypatch.setattr(Evaluator, "trial", kinder)
    artifact = job.build(max_error=0.2)
    assert artifact.decision == "compressed"
    assert artifact.comparison.error <= 0.2
    assert len(limits) >= 2
    assert all(later < earlier for earlier, later in pairwise(limits))


def test_a_flops_budget_that_cannot_be_kept_is_said(job: Job) -> None:
    wanted = {"solver": "tdc", "flops_budget": 0.2, "max_error": 1e-4}
    artifact = job.build(**wanted)
    assert any("FLOPs budget of 0.2 was not met" in warning for warning in artifact.warnings)
    with pytest.raises(TdcError, match="FLOPs budget"):
        job.build(**wanted, strict=True)
