"""Models that came in with chains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tdc_deploy import api
from tdc_deploy.plan_file import LayerChoice, Plan
from tdc_deploy.source import read_source
from tdc_deploy.types import Candidate, Ranks
from tdc_deploy.verify import Comparison, compare_outputs
from tests.builders import LAYERS, chain_cnn, images, save_model
from tests.building.jobs import (
    FUSED,
    LOW,
    MAX_ERROR,
    Job,
    assert_source_was_shipped,
    operators,
    run,
    sidecar_of,
)
from tests.fakes import FakeTime


def test_chains_are_fused_without_planning(chains: Job, fake_time: FakeTime) -> None:
    artifact = chains.build(inputs=None, max_error=None)
    assert artifact.decision == "fused"
    assert artifact.plan is None
    assert fake_time.measured == 0
    assert operators(artifact.path).count("TuckerConvAdd") == 1
    assert operators(artifact.path).count("Conv") == 1
    before, after = (run(p, image=images(4)) for p in (chains.model, artifact.path))
    assert np.abs(before - after).max() <= FUSED
    assert not artifact.verified
    assert sidecar_of(artifact)["plan"] is None


def test_fused_chains_are_verified_on_inputs(chains: Job) -> None:
    artifact = chains.build()
    assert artifact.decision == "fused"
    assert artifact.verified
    assert artifact.comparison.error <= 1e-4  # rounding


@pytest.mark.parametrize(("error", "decision"), [(0.0, "fused"), (5e-4, "fused"), (5e-3, "source")])
def test_no_error_limit_is_below_the_rounding_that_fusing_may_cause(
    chains: Job, monkeypatch: pytest.MonkeyPatch, error: float, decision: str
) -> None:
    def rounded(*arguments: Any) -> Comparison:
        return replace(compare_outputs(*arguments), error=error)

    monkeypatch.setattr("tdc_deploy.evaluate.compare_outputs", rounded)
    assert chains.build(max_error=0.0).decision == decision


def test_fused_chains_ship_unless_they_are_slower(chains: Job, fake_time: FakeTime) -> None:
    fake_time.ratio = (1.01, 0.99, 1.03)
    assert chains.build().decision == "fused"
    fake_time.ratio = (1.005, 1.004, 1.006)  # as two sessions of one model may differ
    assert chains.build().decision == "fused"
    fake_time.ratio = (1.03, 1.02, 1.05)
    artifact = chains.build()
    assert_source_was_shipped(chains, artifact)
    assert "slower" in artifact.reason


@pytest.mark.parametrize(
    "budget",
    [
        {"latency_budget": 0.8},
        {"speedup": 1.25},
        {"solver": "tdc", "flops_budget": 0.5},
    ],
    ids=str,
)
def test_any_budget_plans_the_layers_that_are_no_chains(
    chains: Job, budget: dict[str, Any]
) -> None:
    artifact = chains.build(**budget)
    assert artifact.plan is not None
    assert list(artifact.plan.selection) == list(artifact.plan.layers) == ["conv1"]
    assert artifact.decision == "compressed"
    assert operators(artifact.path).count("TuckerConvAdd") == 1


def test_a_plan_is_applied_beside_the_chains(chains: Job) -> None:
    artifact = chains.build(plan=Plan({"conv1": LayerChoice(LOW)}), max_error=1.0)
    assert artifact.decision == "compressed"
    assert "Conv" not in operators(artifact.path)


@pytest.mark.parametrize("ranks", [Ranks(4, 16), Ranks(4, 48)], ids=str)
def test_rebuilding_from_an_artifact_gives_the_same_network(job: Job, ranks: Ranks) -> None:
    # The second keeps all output channels, which only the file's own record calls a decomposition.
    choice = LayerChoice(Candidate("tucker2", ranks, "fused"))
    first = job.build(plan=Plan(dict.fromkeys(LAYERS, choice)), max_error=1.0)
    assert first.decision == "compressed"
    again = job.folder / "out" / "again.onnx"
    second = api.build(first.path, again, inputs=job.inputs, store=job.store, threads=1)
    assert second.decision == "fused"
    assert second.plan is None
    assert operators(again) == operators(first.path)
    before, after = (run(path, image=images(4)) for path in (first.path, again))
    assert np.abs(before - after).max() <= FUSED


def test_rebuilding_with_a_budget_leaves_the_chains_alone(job: Job) -> None:
    plan = Plan({"conv2": LayerChoice(LOW)})
    first = job.build(plan=plan, max_error=1.0)
    again = job.folder / "out" / "again.onnx"
    second = api.build(
        first.path,
        again,
        inputs=job.inputs,
        latency_budget=0.7,
        max_error=MAX_ERROR,
        store=job.store,
        threads=1,
    )
    assert second.plan is not None
    assert sorted(second.plan.layers) == ["conv1", "conv3"]
    assert second.decision == "compressed"
    chosen = second.plan.selection
    assert chosen
    convs = [op for op in operators(again) if op.startswith("TuckerConv")]
    assert len(convs) == 1 + sum(candidate.form == "tucker2" for candidate in chosen.values())


def test_a_model_that_is_compressed_already_is_fused_whatever_the_budget(job: Job) -> None:
    everything = {name: LayerChoice(Candidate("tucker2", Ranks(8, 8), "fused")) for name in LAYERS}
    job.build(plan=Plan(everything), max_error=9.0)
    again = api.build(job.output, job.folder / "again.onnx", inputs=job.inputs, latency_budget=0.5)
    assert again.decision == "fused"
    assert any("compressed already" in warning for warning in again.warnings)
    assert again.ratio.lower > 0.5
    assert any("the built network takes" in warning for warning in again.warnings)


def test_a_chain_in_a_mostly_dense_model_does_not_stop_the_planning(job: Job) -> None:
    model = chain_cnn(ranks=(8, 8))
    save_model(model, job.model)
    artifact = job.build(max_error=0.5)
    assert artifact.plan is not None
    assert list(artifact.plan.layers) == ["conv1"]


def test_a_plan_may_keep_a_chain_native(job: Job) -> None:
    candidate = Candidate("tucker2", Ranks(16, 16), "native")
    artifact = job.build(plan=Plan({"conv2": LayerChoice(candidate)}), max_error=9.0)
    assert artifact.decision == "compressed"
    assert not any(name.startswith("Tucker") for name in operators(artifact.path))
    # It is remembered as a decomposition all the same.
    assert [chain.core.name for chain in read_source(artifact.path).compressed] == ["conv2/core"]
