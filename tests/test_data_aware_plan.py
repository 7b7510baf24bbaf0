"""Plans and builds of networks that are decomposed for the inputs they see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tdc_deploy.artifact import Artifact
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.builder import Terms, make_artifact
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.graph.convs import kernel
from tdc_deploy.plan_file import LayerChoice, Plan, plan_to_json, read_plan, write_plan
from tdc_deploy.planner import Goal, make_plan, with_errors
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import silent
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source, read_source
from tdc_deploy.statistics import LayerStatistics
from tdc_deploy.tucker import decompose, reconstruct
from tdc_deploy.tucker.data_aware import weighted_error
from tdc_deploy.types import Candidate, Ranks
from tests.builders import LAYERS, images, save_model, small_cnn
from tests.fakes import FakeTime
from tests.moments import measured

BACKEND = OnnxRuntimeBackend(1)
LATENT = 6
LOW = Candidate("tucker2", Ranks(8, 16), "fused")
IN = Candidate("tucker_in", Ranks(8, 48))


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


def latent_images(count: int, seed: int = 1) -> NDArray[np.float32]:
    """32 channels that are mixtures of 6."""
    mixing = np.random.default_rng(0).standard_normal((32, LATENT)) / LATENT**0.5
    mixed = np.einsum("cl,nlyx->ncyx", mixing, images(count, LATENT, seed=seed))
    return np.asarray(mixed, np.float32)


def source_of(folder: Path, decay: float = 1.0) -> Source:
    return read_source(save_model(small_cnn(decay=decay), folder / "small.onnx"))


def with_data(source: Source, data: NDArray[np.float32], sha256: str = "data") -> Source:
    return source.with_statistics(measured(source, Samples({"image": data}, 1), sha256))


def evaluator_of(source: Source, data: NDArray[np.float32], store: Store) -> Evaluator:
    return Evaluator(source, Samples({"image": data}, 1), BACKEND, store)


def built(source: Source, folder: Path, goal: Goal, plan: Plan | None = None) -> Artifact:
    with Store(folder / "store.sqlite3") as store:
        evaluator = evaluator_of(source, latent_images(16, seed=2), store)
        output = folder / "fast.onnx"
        return make_artifact(evaluator, store, output, goal, plan, Terms(), silent)


def test_inputs_of_few_directions_make_a_network_compressible(
    tmp_path: Path, fake_time: FakeTime
) -> None:
    """Its kernels are of full rank: by weight alone nothing can be dropped."""
    del fake_time
    goal = Goal(max_error=0.01)
    plain = source_of(tmp_path, decay=0.0)
    assert built(plain, tmp_path, goal).decision == "source"
    artifact = built(with_data(plain, latent_images(8)), tmp_path, goal)
    assert artifact.decision == "compressed"
    assert artifact.comparison.error <= 0.01
    assert artifact.plan is not None
    chosen = artifact.plan.selection["conv1"]
    assert chosen.ranks is not None
    assert LATENT <= chosen.ranks.r_in < 32


def test_the_plans_errors_are_what_its_factors_lose(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    data = images(16)
    source = with_data(source_of(tmp_path), data)
    assert source.statistics is not None
    with Store(tmp_path / "store.sqlite3") as store:
        evaluator = evaluator_of(source, data, store)
        plan = make_plan(evaluator, store, Goal(0.5, 1.0), silent)
    assert len(plan.selection) >= 2
    for name, candidate in plan.selection.items():
        factors = source.decompositions.factors(name, candidate, refine=True)
        weight = kernel(source.convs[name].node)
        error = weighted_error(weight, source.statistics.moments[name], factors)
        assert candidate.error == error
        (bound,) = source.decompositions.errors(name, [candidate])
        assert 0 < error <= bound + 1e-6  # of the moment's ridge
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    assert plan_to_json(plan)["statistics_sha256"] == "data"


def test_a_given_plan_is_applied_data_aware(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    given = Plan({"conv2": LayerChoice(replace(LOW, error=0.7))})
    plain = source_of(tmp_path)
    goal = Goal(max_error=1.0)
    by_weight = built(plain, tmp_path, goal, given)
    aware = built(with_data(plain, latent_images(16)), tmp_path, goal, given)
    assert aware.comparison.error < by_weight.comparison.error
    assert by_weight.plan is not None
    assert aware.plan is not None
    assert by_weight.plan.statistics_sha256 is None
    # The given error was another's.
    assert aware.plan.selection["conv2"].error < by_weight.plan.selection["conv2"].error < 0.7


def test_a_plan_for_other_statistics_says_so(tmp_path: Path, fake_time: FakeTime) -> None:
    del fake_time
    goal, choices = Goal(max_error=1.0), {"conv2": LayerChoice(LOW)}
    plain = source_of(tmp_path)
    aware = with_data(plain, latent_images(16))
    assert aware.statistics is not None
    own = Plan(choices, statistics_sha256=aware.statistics.sha256)
    for source, plan, said in (
        (plain, own, "by their weights alone"),
        (aware, replace(own, statistics_sha256="another"), "for other data"),
        (aware, own, ""),
        (plain, Plan(choices), ""),
    ):
        found = [w for w in built(source, tmp_path, goal, plan).warnings if "--calib" in w]
        assert len(found) == bool(said)
        assert all(said in warning for warning in found)


def test_what_ships_unrefined_has_its_own_errors(
    tmp_path: Path, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refined network is made to miss the limit."""
    del fake_time
    source = with_data(source_of(tmp_path), latent_images(16))
    original = Evaluator.model

    def ruined(self: Evaluator, selection: dict[str, Candidate], refine: bool = False):  # type: ignore[no-untyped-def]  # noqa: ANN202
        chosen = dict.fromkeys(LAYERS, Candidate("tucker2", Ranks(4, 4), "fused"))
        return original(self, chosen if refine else selection, refine)

    monkeypatch.setattr(Evaluator, "model", ruined)
    given = Plan({"conv2": LayerChoice(LOW)})
    artifact = built(source, tmp_path, Goal(max_error=0.1), given)
    assert artifact.decision == "compressed"
    assert artifact.plan is not None
    error = artifact.plan.selection["conv2"].error
    assert error == source.decompositions.error("conv2", LOW, refined=False)
    assert error != source.decompositions.error("conv2", LOW)


def test_trials_are_kept_by_statistics_and_layer_times_are_not(
    tmp_path: Path, fake_time: FakeTime
) -> None:
    data = images(16)
    plain = source_of(tmp_path)
    with Store(tmp_path / "store.sqlite3") as store:

        def plan(source: Source) -> tuple[int, int]:
            """Measured and compared anew."""
            before = fake_time.measured, fake_time.compared
            make_plan(evaluator_of(source, data, store), store, Goal(0.5, 1.0), silent)
            return fake_time.measured - before[0], fake_time.compared - before[1]

        assert min(plan(plain)) > 0
        one, other = (with_data(plain, data, sha256) for sha256 in ("one", "other"))
        # Only candidates that the other errors offer are new.
        measured_anew, compared = plan(one)
        assert measured_anew < 40
        assert compared > 0
        measured_anew, compared = plan(other)
        assert measured_anew == 0
        assert compared > 0
        assert plan(one) == plan(other) == plan(plain) == (0, 0)


def test_the_dense_networks_time_does_not_depend_on_statistics(
    tmp_path: Path, fake_time: FakeTime
) -> None:
    plain = source_of(tmp_path)
    with Store(tmp_path / "store.sqlite3") as store:
        for source in (plain, with_data(plain, images(8))):
            assert evaluator_of(source, images(16), store).dense_ms > 0
    assert fake_time.measured == 1


def test_candidates_lose_less_at_higher_ranks(tmp_path: Path) -> None:
    source = with_data(source_of(tmp_path), images(8))
    grid = (4, 8, 16, 24, 32)
    errors = np.array(
        [
            source.decompositions.errors(
                "conv1", [Candidate("tucker2", Ranks(r_in, r_out)) for r_out in grid]
            )
            for r_in in grid
        ]
    )
    assert (np.diff(errors, axis=0) < 0).all()
    assert (np.diff(errors, axis=1) < 0).all()


@pytest.mark.parametrize("form", ["tucker2", "tucker_in", "tucker_out"])
def test_errors_agree_with_the_factors_in_every_form(tmp_path: Path, form: str) -> None:
    source = with_data(source_of(tmp_path), images(8))
    assert source.statistics is not None
    ranks = {
        "tucker2": Ranks(16, 24),
        "tucker_in": Ranks(16, 48),
        "tucker_out": Ranks(48, 24),
    }[form]
    candidate = Candidate(form, ranks)  # type: ignore[arg-type]
    factors = source.decompositions.factors("conv2", candidate)
    moment = source.statistics.moments["conv2"]
    lost = weighted_error(kernel(source.convs["conv2"].node), moment, factors)
    (bound,) = source.decompositions.errors("conv2", [candidate])
    # The better of two starts; the other is seldom much better.
    assert lost <= bound + 1e-6
    assert bound <= 1.2 * lost


def test_the_same_factors_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = with_data(source_of(tmp_path), images(8))
    first = source.decompositions.factors("conv1", LOW)
    refined = source.decompositions.factors("conv1", LOW, refine=True)
    assert source.decompositions.factors("conv1", LOW) is first
    assert source.decompositions.factors("conv1", replace(LOW, implementation="native")) is first
    assert refined is not first
    monkeypatch.setattr("tdc_deploy.decompositions.CACHED_BYTES", 1)
    source.decompositions.factors("conv2", LOW)
    again = source.decompositions.factors("conv1", LOW)
    assert again is not first
    np.testing.assert_array_equal(reconstruct(again), reconstruct(first))


@pytest.mark.parametrize("silent_moment", [False, True])
def test_a_layer_without_statistics_is_decomposed_by_its_weights(
    tmp_path: Path, silent_moment: bool
) -> None:
    """One that was not measured, and one whose inputs were all zero."""
    plain = source_of(tmp_path)
    full = with_data(plain, images(8))
    assert full.statistics is not None
    moments = dict(full.statistics.moments)
    removed = moments.pop("conv2")
    if silent_moment:
        moments["conv2"] = np.zeros_like(removed)
    source = plain.with_statistics(LayerStatistics(moments, "some"))
    assert source.decompositions.is_data_aware("conv1")
    assert not source.decompositions.is_data_aware("conv2")
    weight = kernel(source.convs["conv2"].node)
    factors = source.decompositions.factors("conv2", LOW)
    expected = decompose(weight, "tucker2", Ranks(8, 16))
    np.testing.assert_array_equal(reconstruct(factors), reconstruct(expected))
    assert source.decompositions.errors("conv2", [LOW]) == plain.decompositions.errors(
        "conv2", [LOW]
    )
    assert source.decompositions.error("conv2", LOW) == plain.decompositions.error("conv2", LOW)


def test_statistics_of_another_model_are_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    with pytest.raises(TdcError, match="does not have"):
        source.with_statistics(LayerStatistics({"other": np.eye(288)}, "x"))
    with pytest.raises(TdcError, match=r"layer 'conv1'.*shape"):
        source.with_statistics(LayerStatistics({"conv1": np.eye(289)}, "x"))
    broken = np.full((288, 288), np.nan)
    with pytest.raises(TdcError, match=r"layer 'conv1'.*not finite"):
        source.with_statistics(LayerStatistics({"conv1": broken}, "x"))


def test_dense_layers_lose_nothing(tmp_path: Path) -> None:
    source = with_data(source_of(tmp_path), images(8))
    dense = Plan({"conv1": LayerChoice(Candidate("dense")), "conv2": LayerChoice(IN)})
    found = with_errors(dense, source)
    assert found.layers["conv1"].candidate.error == 0
    assert found.layers["conv2"].candidate.error > 0


def test_a_warm_store_decomposes_nothing(
    tmp_path: Path, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    del fake_time
    data = images(16)

    def plan(sha256: str = "data") -> Plan:
        source = with_data(source_of(tmp_path), data, sha256)
        with Store(tmp_path / "store.sqlite3") as store:
            return make_plan(evaluator_of(source, data, store), store, Goal(0.5, 1.0), silent)

    def refused(*_: object) -> None:
        raise AssertionError("decomposed again")

    cold = plan()
    for name in ("data_aware_errors", "data_aware_decompose", "weighted_error"):
        monkeypatch.setattr(f"tdc_deploy.decompositions.{name}", refused)
    warm = plan()
    assert warm.selection == cold.selection
    with pytest.raises(AssertionError, match="again"):
        plan("other data")
