"""Plans by times of engines, on a stand-in for a GPU whose times follow from a formula."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import onnx
import pytest

import tdc_deploy
from tdc_deploy import api, engine_forms, engine_revert, engines
from tdc_deploy.backends.tensorrt import backend, embedded, machine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import network_of
from tdc_deploy.plan_file import Plan, plan_from_json, plan_to_json
from tdc_deploy.profiling.store import Store
from tdc_deploy.revert import PLANNED
from tdc_deploy.sidecar import read_sidecar
from tdc_deploy.source import read_source
from tdc_deploy.strict_json import dumps
from tdc_deploy.tucker.cost import chain_cost, dense_cost
from tdc_deploy.types import DENSE, Candidate, ConvLayer, Implementation, Ranks, Ratio
from tdc_deploy.verify import Comparison
from tests.builders import LAYERS
from tests.fake_gpu_times import LAUNCH_MS, MACS_PER_MS, REST_MS, FakeGpu
from tests.fake_tensorrt import fill, scaled


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TDC_DEPLOY_CACHE", str(tmp_path / "cache"))
    return fill(tmp_path)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FakeGpu:
    return FakeGpu(monkeypatch, folder / "plugin.so")


def plan(folder: Path, **options: Any) -> Plan:
    defaults: dict[str, Any] = {
        "inputs": folder / "inputs.npz",
        "max_error": 0.9,
        "engine": EngineOptions(),
        "threads": 1,
    }
    return tdc_deploy.plan(folder / "model.onnx", **{**defaults, **options})


def build(folder: Path, **options: Any) -> Any:
    defaults: dict[str, Any] = {"inputs": folder / "inputs.npz", "max_error": 0.9, "threads": 1}
    return api.build(folder / "model.onnx", folder / "out.engine", **{**defaults, **options})


def chains_of(folder: Path) -> dict[str, str]:
    sidecar = read_sidecar(folder / "out.engine")
    assert sidecar is not None
    chains: dict[str, str] = sidecar["engine"]["chains"]
    return chains


def milliseconds(layer: ConvLayer, candidate: Candidate, slowness: float) -> float:
    """The formula of the stand-in, said again."""
    if candidate.form == "dense":
        return LAUNCH_MS + dense_cost(layer).macs / MACS_PER_MS
    macs = chain_cost(layer, candidate).macs / MACS_PER_MS
    if candidate.implementation == "fused":
        return LAUNCH_MS + slowness * macs
    return {"tucker2": 3}.get(candidate.form, 2) * LAUNCH_MS + macs


def test_the_faster_of_plugin_and_convolutions_is_chosen_for_each_layer(
    folder: Path, gpu: FakeGpu
) -> None:
    gpu.slowness_at = {32: 0.5, 48: 50.0}
    made = plan(folder, max_error=5.0)
    layers = read_source(folder / "model.onnx").plannable
    assert set(made.selection) == set(layers)
    for name, candidate in made.selection.items():
        slowness = gpu.slowness_at[layers[name].c_in]
        expected = REST_MS + milliseconds(layers[name], candidate, slowness)
        assert candidate.latency_ms == pytest.approx(expected)
        every = [
            milliseconds(layers[name], Candidate("tucker2", Ranks(r_in, r_out), how), slowness)
            for r_in in ((8, 16) if layers[name].c_in == 32 else (16, 32))
            for r_out in (16, 32)
            for how in get_args(Implementation)
        ]
        assert expected - REST_MS <= min(every) * (1 + 1e-9)
    chosen = {name: c.implementation for name, c in made.selection.items()}
    assert chosen == {"conv1": "fused", "conv2": "native", "conv3": "native"}


@pytest.mark.parametrize(("slowness", "implementation"), [(0.5, "fused"), (50.0, "native")])
def test_where_one_always_wins_it_is_always_chosen(
    folder: Path, gpu: FakeGpu, slowness: float, implementation: str
) -> None:
    gpu.slowness = slowness
    made = plan(folder)
    assert len(made.selection) == 3
    assert {c.implementation for c in made.selection.values()} == {implementation}


def test_the_plan_is_the_fastest_that_keeps_the_limit(folder: Path, gpu: FakeGpu) -> None:
    """A network's time is the sum of its layers' here: the prediction is exact, and so is the ratio."""
    made = plan(folder, max_error=5.0)
    assert made.network is not None and gpu.log
    layers = read_source(folder / "model.onnx").plannable
    rest = REST_MS  # the head is no convolution
    expected = rest + sum(
        milliseconds(layers[name], made.layers[name].candidate, 1.0) for name in layers
    )
    assert made.network.measured_ms == pytest.approx(expected)
    dense = rest + sum(
        LAUNCH_MS + dense_cost(layer).macs / MACS_PER_MS for layer in layers.values()
    )
    assert made.network.dense_ms == pytest.approx(dense)


@pytest.mark.parametrize("budget", [0.5, 0.7])
def test_budgets_are_met_with_less_error(folder: Path, gpu: FakeGpu, budget: float) -> None:
    made = plan(folder, latency_budget=budget)
    assert made.network is not None
    assert made.network.ratio <= budget
    assert made.network.error <= 0.9
    assert not made.warnings
    assert gpu.log


def test_the_papers_rule_plans_on_engines_too(folder: Path, gpu: FakeGpu) -> None:
    made = plan(folder, solver="tdc", flops_budget=0.5)
    layers = read_source(folder / "model.onnx").plannable
    for name, candidate in made.selection.items():
        assert candidate.form == "tucker2"
        assert chain_cost(layers[name], candidate).macs <= 0.5 * dense_cost(layers[name]).macs
    assert made.selection and gpu.log


def test_a_second_plan_measures_and_builds_nothing(folder: Path, gpu: FakeGpu) -> None:
    first = plan(folder, latency_budget=0.6)
    assert first.measurements > 6
    gpu.log.clear()
    second = plan(folder, latency_budget=0.6)
    assert second.measurements == 0
    assert gpu.log == []
    assert second.layers == first.layers


def test_no_layer_is_built_between_measurements(
    folder: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tdc_deploy.profiling.layers.BATCH", 4)
    plan(folder)
    runs = [(what, len(list(group))) for what, group in itertools.groupby(gpu.log)]
    # The source alone, then the layers in batches, and whole networks one by one.
    assert runs[:2] == [("build", 1), ("measure", 1)]
    batches = [(b, m) for (_, b), (_, m) in zip(runs[2::2], runs[3::2], strict=True)]
    assert batches[0] == (2, 2), "the dense layers of two shapes"
    assert batches[1:3] == [(4, 4)] * 2, "candidates"
    assert batches[-1] == (1, 1), "networks"
    assert all(built == measured for built, measured in batches)


def test_errors_are_not_measured_on_engines(folder: Path, gpu: FakeGpu) -> None:
    """Those of an earlier plan on ONNX Runtime are known already."""
    gpu.slowness = 0.5
    options: dict[str, Any] = {"store": folder / "store.sqlite3"}
    plan(folder, **options)
    with Store(folder / "store.sqlite3") as store:
        kinds = store._connection.execute("SELECT kind, description FROM measurements").fetchall()
    errors = [description for kind, description in kinds if kind == "error"]
    assert errors and all('"onnxruntime"' in description for description in errors)
    trials = [description for kind, description in kinds if kind == "trial"]
    assert trials and all('"tensorrt"' in description for description in trials)


def test_the_plan_can_be_written_and_read_again(folder: Path, gpu: FakeGpu) -> None:
    gpu.slowness = 3.5
    made = plan(folder, engine=EngineOptions("fp16"))
    assert plan_from_json(json.loads(dumps(plan_to_json(made))), "plan") == made
    assert (made.backend["backend"], made.backend["precision"]) == ("tensorrt", "fp16")


def test_candidates_that_cannot_be_built_are_left_out(folder: Path, gpu: FakeGpu) -> None:
    gpu.slowness = 0.5
    gpu.refuse = {"TuckerConv"}
    made = plan(folder)
    assert {c.implementation for c in made.selection.values()} == {"native"}
    assert "candidates could not be measured; the first: no kernel for it" in made.warnings[0]
    # They are not kept as slow: with a plugin that runs them they are asked again.
    gpu.refuse = set()
    assert {c.implementation for c in plan(folder).selection.values()} == {"fused"}


def test_what_cannot_be_measured_is_no_missed_goal(folder: Path, gpu: FakeGpu) -> None:
    gpu.slowness = 0.5
    gpu.refuse = {"TuckerConv"}
    artifact = build(folder, latency_budget=0.9, strict=True)
    assert artifact.ratio.value <= 0.9
    assert any("could not be measured" in warning for warning in artifact.warnings)


def test_what_cannot_be_measured_does_not_hide_a_missed_budget(
    folder: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials reach the budget, the engines that are built in the end do not."""
    gpu.refuse = {"TuckerConv"}
    measured = gpu._compare_fresh

    def slower(*arguments: Any) -> Ratio:
        found = measured(*arguments)
        return replace(found, value=0.9, lower=0.89, upper=0.91) if found.value < 1 else found

    monkeypatch.setattr(engine_forms, "compare_fresh", slower)
    artifact = build(folder, latency_budget=0.8)
    assert "the latency budget of 0.8 was planned for" in artifact.warnings[0]
    assert "could not be measured" in artifact.warnings[1]
    with pytest.raises(TdcError, match=r"the latency budget of 0\.8 was planned for"):
        build(folder, latency_budget=0.8, strict=True)


def test_chains_without_a_kernel_that_travels_are_not_even_built(
    folder: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "register_embedded", lambda _: None)
    monkeypatch.setattr(machine, "find_nvcc", lambda: "nvcc")
    monkeypatch.setattr(machine, "nvcc_version", lambda _: "release 12.8")
    monkeypatch.setattr(embedded, "why_not", lambda *_: "too large")
    made = plan(folder, engine=EngineOptions("fp16", plugin_mode="embedded"))
    assert gpu.log and made.selection
    assert made.warnings == ()


def test_a_dense_layer_that_cannot_be_built_ends_the_plan(
    folder: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_layer(*_: Any) -> Any:
        raise TdcError("no layout for it")

    monkeypatch.setattr(backend, "build_layer", build_layer)
    with pytest.raises(TdcError, match="no layout for it"):
        plan(folder)
    assert gpu.log == ["build", "measure"], "the source"


def test_all_builds_share_one_timing_cache(folder: Path, gpu: FakeGpu) -> None:
    build(folder)
    (cache,) = {options.timing_cache for options in gpu.options}
    assert cache is not None and cache.parent == folder / "cache" / "timing-caches"
    assert "10.9.0.34" in cache.name and "A100" in cache.name
    gpu.options.clear()
    build(folder, engine=EngineOptions(timing_cache=folder / "mine"))
    assert {options.timing_cache for options in gpu.options} == {folder / "mine"}


def test_taking_chains_back_shares_it_too(folder: Path, gpu: FakeGpu) -> None:
    """A model that came in as chains is not planned."""
    api.build(folder / "chain.onnx", folder / "out.engine", threads=1)
    (cache,) = {options.timing_cache for options in gpu.options}
    assert cache is not None and cache.parent == folder / "cache" / "timing-caches"


def test_a_build_without_a_plan_makes_one(folder: Path, gpu: FakeGpu) -> None:
    artifact = build(folder, latency_budget=0.6)
    assert artifact.decision == "compressed"
    assert artifact.ratio.value <= 0.6
    assert artifact.plan.backend["backend"] == "tensorrt"
    assert chains_of(folder) == dict.fromkeys(artifact.plan.selection, "fused")
    assert not artifact.warnings
    assert gpu.loaded == [folder / "plugin.so"]


def test_a_budget_out_of_reach_is_a_warning_or_an_error(folder: Path, gpu: FakeGpu) -> None:
    artifact = build(folder, latency_budget=0.01)
    assert "the latency budget of 0.01 was not met" in artifact.warnings[0]
    before = (folder / "out.engine").read_bytes()
    gpu.log.clear()
    with pytest.raises(TdcError, match=r"latency budget of 0\.01 was not met"):
        build(folder, latency_budget=0.01, strict=True)
    assert (folder / "out.engine").read_bytes() == before


def test_an_error_limit_overrides_a_budget(folder: Path, gpu: FakeGpu) -> None:
    artifact = build(folder, latency_budget=0.3, max_error=0.15)
    assert artifact.comparison.error <= 0.15
    assert artifact.ratio.value > 0.3
    assert gpu.log


def test_nothing_compressed_is_the_sources_own_engine(folder: Path, gpu: FakeGpu) -> None:
    artifact = build(folder, max_error=1e-3)
    assert artifact.decision == "source"
    assert set(chains_of(folder).values()) <= {"dense"}
    assert gpu.log


def test_a_bad_chain_is_taken_back_and_the_good_ones_are_kept(folder: Path, gpu: FakeGpu) -> None:
    gpu.penalties = {"conv2/last": 0.008}
    artifact = build(folder)
    chains = chains_of(folder)
    assert set(artifact.plan.selection) == set(LAYERS)
    assert chains == {"conv1": "fused", "conv2": "native", "conv3": "fused"}
    assert artifact.decision == "compressed"
    sidecar = read_sidecar(artifact.path)
    assert sidecar is not None
    forms = sidecar["engine"]["forms"]
    assert sidecar["engine"]["form"] == "reverted"
    assert forms["reverted"]["time_ms"] == min(form["time_ms"] for form in forms.values())
    assert sidecar["plugin"] is not None


def test_a_layer_that_is_best_dense_is_left_dense(
    folder: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both forms of its chain cost more in the network than alone."""
    original = gpu.node_ms

    def node_ms(node: Any, *sizes: int) -> float:
        return original(node, *sizes) + (0.015 if node.name.startswith("conv2/") else 0.0)

    monkeypatch.setattr(gpu, "node_ms", node_ms)
    artifact = build(folder)
    assert chains_of(folder) == {"conv1": "fused", "conv2": "dense", "conv3": "fused"}
    assert artifact.ratio.value < 1
    assert sorted(artifact.plan.selection) == ["conv1", "conv3"]
    taken_back = artifact.plan.layers["conv2"]
    assert taken_back.candidate == replace(DENSE, latency_ms=taken_back.dense_ms)


def test_what_loses_too_much_is_not_taken_back(
    folder: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two chains are bad, but without both the engine loses too much: the better one alone goes."""
    original = engine_forms.Workshop.verify
    penalties = {"conv2/last": 0.008, "conv3/last": 0.006}
    gpu.penalties = penalties

    def verify(shop: Any, engine: Any, form: str) -> Comparison:
        found = original(shop, engine, form)
        nodes = onnx.load_model_from_string(engine.plan).graph.node
        fused = {node.name for node in nodes if node.domain == "tdc"}
        rounds = form == "reverted" and not fused & set(penalties)
        return replace(found, error=2.0) if rounds else found

    monkeypatch.setattr(engine_forms.Workshop, "verify", verify)
    monkeypatch.setattr("tdc_deploy.revert.MOST_DENSE", 0)
    build(folder)
    assert chains_of(folder) == {"conv1": "fused", "conv2": "native", "conv3": "fused"}


def test_engines_of_a_taking_back_do_not_pile_up(
    folder: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.penalties = {"conv2/last": 0.008}
    compare = engine_revert._Trials.compare
    left: list[Any] = []

    def watched(trials: Any, base: Any, others: Any, effort: Any) -> Any:
        found = compare(trials, base, others, effort)
        left.append((len(trials.made), base))
        new = {back: made for back, made in trials.made.items() if back != PLANNED}
        assert not any(prepared.model.graph.node for prepared, _ in new.values())
        return found

    monkeypatch.setattr(engine_revert._Trials, "compare", watched)
    build(folder)
    assert chains_of(folder)["conv2"] == "native"
    assert left[-1][1] != PLANNED
    assert all(count <= 2 for count, _ in left), "the base, and the one step that helps"


def test_a_given_plan_is_applied_as_it_is(folder: Path, gpu: FakeGpu) -> None:
    made = plan(folder)
    gpu.penalties = {"conv2/last": 0.008}
    gpu.log.clear()
    build(folder, plan=made)
    assert gpu.count("build") == 3
    assert set(chains_of(folder).values()) == {"fused"}


def test_never_slower_than_the_source(folder: Path, gpu: FakeGpu) -> None:
    """Whatever is compressed costs more in a network than alone."""
    gpu.slowness = 0.5
    gpu.penalties = {f"{name}/last": 1.0 for name in LAYERS}
    artifact = build(folder)
    chosen = engine_time(gpu, (folder / "out.engine").read_bytes())
    source = artifact.ratio.before.median
    assert chosen <= source


def engine_time(gpu: FakeGpu, content: bytes) -> float:
    return gpu._known[content]


def test_a_plan_that_the_engines_round_beyond_the_limit_is_made_again(
    folder: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = engine_forms.Workshop.verify
    asked: list[str] = []

    def verify(shop: Any, engine: Any, form: str) -> Comparison:
        found = original(shop, engine, form)
        asked.append(form)
        rounds = form == "fused" and asked.count(form) == 1
        return replace(found, error=1.2) if rounds else found

    monkeypatch.setattr(engine_forms.Workshop, "verify", verify)
    monkeypatch.setattr(engines, "networks_of", only_fused)
    artifact = build(folder, max_error=0.6)
    assert asked.count("fused") == 2
    assert artifact.decision == "compressed"
    # Aimed at half of the limit, since twice the limit came out.
    assert artifact.plan.network.error <= 0.3
    assert gpu.log


def only_fused(networks: Any) -> dict[str, Any]:
    return {"fused": networks.planned()}


@pytest.mark.parametrize("at", [1, 5, 15])
def test_ctrl_c_leaves_no_file_and_keeps_what_was_measured(
    folder: Path, gpu: FakeGpu, at: int
) -> None:
    whole = plan(folder, store=folder / "other.sqlite3").measurements
    before = {path.name for path in folder.iterdir()}
    gpu.log.clear()
    gpu.fail_at = at
    with pytest.raises(KeyboardInterrupt):
        build(folder)
    assert {path.name for path in folder.iterdir()} - before <= {"cache"}
    kept = gpu.count("measure")
    gpu.fail_at = None
    gpu.log.clear()
    assert build(folder).plan.measurements <= whole - max(kept - 1, 0)
    assert (folder / "out.engine").exists()


def test_a_plan_without_a_gpu_is_one_message(folder: Path) -> None:
    with pytest.raises(TdcError, match="ranks cannot be planned on TensorRT") as error:
        plan(folder)
    assert "missing: the Python package tensorrt" in error.value.received
    assert "leave out --backend tensorrt" in error.value.fix


def test_shapes_are_those_of_the_plan(folder: Path, gpu: FakeGpu) -> None:
    made = plan(folder, shapes={"image": (4, 32, 24, 24)})
    assert made.network is not None
    networks = [network_of(p.model) for p in gpu.built if "logits" in str(p.model.graph.output)]
    assert networks
    layers = [p.model for p in gpu.built if p.model.graph.output[0].name == "y"]
    assert {m.graph.input[0].type.tensor_type.shape.dim[0].dim_value for m in layers} == {4}


def test_what_overflows_in_fp16_is_float32_in_every_network_that_is_tried(
    folder: Path, gpu: FakeGpu
) -> None:
    """conv2 puts out some 1e6: its parts do so too, whatever its ranks."""
    gpu.slowness = 0.5
    scaled(folder, conv2_weight=2e4, conv2_bias=2e4, conv3_weight=1 / 2e4)
    made = plan(folder, engine=EngineOptions("fp16"))
    networks = [p for p in gpu.built if "logits" in str(p.model.graph.output)]
    tried = [p for p in networks if "conv2/last" in str(p.model.graph.node)]
    assert tried
    for prepared in tried:
        assert {"conv2/first", "conv2/core", "conv2/last"} <= set(prepared.exact)
        assert "conv2/last" not in prepared.fused
    assert "conv2" in made.backend["float32_nodes"].split()
