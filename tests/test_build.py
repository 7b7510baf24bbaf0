from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from tdc_deploy import api
from tdc_deploy.artifact import Artifact
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Evaluator, Trial
from tdc_deploy.files import files_sha256
from tdc_deploy.plan_file import LayerChoice, Plan, read_plan, write_plan
from tdc_deploy.planner import make_plan
from tdc_deploy.profiling.store import Store
from tdc_deploy.runtime.session import Session, load
from tdc_deploy.sidecar import read_sidecar, sidecar_path
from tdc_deploy.source import read_source
from tdc_deploy.tucker import Factors, decompose
from tdc_deploy.types import Candidate, Ranks
from tdc_deploy.verify import Comparison, compare_outputs, relative_error
from tests.builders import (
    LAYERS,
    chain_cnn,
    images,
    linear_model,
    save_model,
    save_npz,
    shifts,
    small_cnn,
)
from tests.fakes import FakeTime

SAMPLES = 16

# Half the time is reached at an error of 0.12 on these inputs, a tenth not at all.
BUDGET = 0.5
MAX_ERROR = 0.3

# The two are the same file in the same library.
SAME = 0.0

# Fusing reorders float32 sums; logits are of size 10.
FUSED = 1e-3

LOW = Candidate("tucker2", Ranks(4, 16), "fused")
ROUGH = Plan({name: LayerChoice(LOW) for name in LAYERS})


@dataclass
class Job:
    """A folder with a model and inputs, and the calls on them."""

    folder: Path
    model: Path
    inputs: Path

    @property
    def output(self) -> Path:
        return self.folder / "out" / "fast.onnx"

    @property
    def store(self) -> Path:
        return self.folder / "store.sqlite3"

    def build(self, **options: Any) -> Artifact:
        given = {"output": self.output, **self._usual(), **options}
        return api.build(self.model, **given)

    def plan(self, **options: Any) -> Plan:
        given = {**self._usual(), **options}
        return api.plan(self.model, **given)

    def _usual(self) -> dict[str, Any]:
        return {"inputs": self.inputs, "max_error": MAX_ERROR, "store": self.store, "threads": 1}

    def written(self) -> list[str]:
        return sorted(path.name for path in self.output.parent.iterdir())


def job_of(folder: Path, model: onnx.ModelProto, **arrays: NDArray[Any]) -> Job:
    (folder / "out").mkdir()
    return Job(
        folder,
        save_model(model, folder / "model.onnx"),
        save_npz(folder / "inputs.npz", **(arrays or {"image": images(SAMPLES)})),
    )


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


@pytest.fixture
def job(tmp_path: Path, fake_time: FakeTime) -> Job:
    """A small CNN in fake time."""
    del fake_time
    return job_of(tmp_path, small_cnn())


@pytest.fixture
def chains(tmp_path: Path, fake_time: FakeTime) -> Job:
    """A CNN that came in with a Tucker chain, in fake time."""
    del fake_time
    return job_of(tmp_path, chain_cnn())


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


def run(path: Path, **feeds: Any) -> NDArray[Any]:
    """The first output in a bare ONNX Runtime, one sample at a time."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    count = len(next(iter(feeds.values())))
    rows = [{name: array[i : i + 1] for name, array in feeds.items()} for i in range(count)]
    return np.concatenate([session.run(None, row)[0] for row in rows])


def call(session: Session, *arrays: NDArray[Any]) -> NDArray[Any]:
    """The output of a session of one output."""
    result = session(*arrays)
    assert isinstance(result, np.ndarray)
    return result


def sidecar_of(artifact: Artifact) -> dict[str, Any]:
    content = read_sidecar(artifact.path)
    assert content is not None
    return content


def assert_source_was_shipped(job: Job, artifact: Artifact) -> None:
    assert artifact.decision == "source"
    assert onnx.load(str(artifact.path)) == onnx.load(str(job.model))
    assert sidecar_of(artifact)["decision"] == "source"
    assert sidecar_of(artifact)["reason"] == artifact.reason
    assert artifact.reason


# What is shipped.


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

    monkeypatch.setattr("tdc_deploy.compress.decompose", spoiled)
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

    monkeypatch.setattr("tdc_deploy.compress.decompose", broken)
    try:
        artifact = job.build(plan=ROUGH, max_error=max_error)
    except TdcError as error:  # an infinite limit may be refused as such
        assert "max_error is inf" in str(error)
        assert job.written() == []
    else:
        assert_source_was_shipped(job, artifact)


# Inputs.


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


# Models that came in with chains.


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


# Plans.


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


# Refused before any work is done.


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


# Interrupted, and again.


def test_an_interrupted_build_leaves_no_file_and_keeps_what_was_measured(
    job: Job, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tdc_deploy.evaluate.compare_outputs", interrupted)
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
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".sqlite3"]
    assert not job.store.exists()


# The artifact.


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
    convs = [op for op in operators(again) if op.startswith("TuckerConv")]
    assert len(convs) >= 2


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


def test_a_plan_of_another_model_is_said_to_be_one(job: Job) -> None:
    plan = job.plan(latency_budget=BUDGET)
    artifact = job.build(plan=replace(plan, model_sha256="0" * 64))
    assert any("another model" in warning for warning in artifact.warnings)


def test_a_model_that_is_compressed_already_is_fused_whatever_the_budget(job: Job) -> None:
    everything = {name: LayerChoice(Candidate("tucker2", Ranks(8, 8), "fused")) for name in LAYERS}
    job.build(plan=Plan(everything), max_error=9.0)
    again = api.build(job.output, job.folder / "again.onnx", inputs=job.inputs, latency_budget=0.5)
    assert again.decision == "fused"
    assert any("compressed already" in warning for warning in again.warnings)


def test_a_plan_that_misses_on_all_inputs_is_made_again(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the plan is tried on may be kinder than the rest of the inputs: here by half."""
    limits: list[float] = []

    def planned(evaluator: Any, store: Any, goal: Any, progress: Any) -> Plan:
        limits.append(goal.max_error)
        return make_plan(evaluator, store, goal, progress)

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


def test_a_flops_budget_that_cannot_be_kept_is_said(job: Job) -> None:
    wanted = {"solver": "tdc", "flops_budget": 0.2, "max_error": 1e-4}
    artifact = job.build(**wanted)
    assert any("FLOPs budget of 0.2 was not met" in warning for warning in artifact.warnings)
    with pytest.raises(TdcError, match="FLOPs budget"):
        job.build(**wanted, strict=True)
