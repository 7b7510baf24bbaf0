"""Plans and engines that mix INT8 and fp16, on a stand-in for a GPU whose times follow from a formula."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

import tdc_deploy
from tdc_deploy import api, engine_forms
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.plan_file import Plan, read_plan, write_plan
from tdc_deploy.profiling.store import Store
from tdc_deploy.sidecar import read_sidecar
from tdc_deploy.source import read_source
from tdc_deploy.tucker.cost import chain_cost
from tdc_deploy.types import Candidate
from tests.fake_gpu_times import LAUNCH_MS, MACS_PER_MS, REST_MS, FakeGpu
from tests.fake_tensorrt import fill

INT8 = EngineOptions().with_precision("int8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TDC_DEPLOY_CACHE", str(tmp_path / "cache"))
    return fill(tmp_path)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FakeGpu:
    """The plugin is good for the layer of 32 channels, and INT8 for those of 48."""
    made = FakeGpu(monkeypatch, folder / "plugin.so")
    made.slowness_at = {32: 0.1, 48: 50.0}
    made.int8_speed = 4.0
    return made


def plan(folder: Path, **options: Any) -> Plan:
    given = {"inputs": folder / "inputs.npz", "max_error": 5.0, "engine": INT8, "threads": 1}
    return tdc_deploy.plan(folder / "model.onnx", **{**given, **options})


def build(folder: Path, **options: Any) -> Any:
    given: dict[str, Any] = {"inputs": folder / "inputs.npz", "max_error": 5.0, "threads": 1}
    given["precision"] = "int8"
    return api.build(folder / "model.onnx", folder / "out.engine", **{**given, **options})


def engine_of(folder: Path) -> dict[str, Any]:
    sidecar = read_sidecar(folder / "out.engine")
    assert sidecar is not None
    engine: dict[str, Any] = sidecar["engine"]
    return engine


def kinds(made: Plan) -> dict[str, tuple[str, str]]:
    return {
        name: (choice.candidate.precision, choice.candidate.implementation)
        for name, choice in made.layers.items()
    }


MIXED = {"conv1": ("fp16", "fused"), "conv2": ("int8", "native"), "conv3": ("int8", "native")}


def test_each_layer_gets_the_faster_of_int8_and_the_plugin(folder: Path, gpu: FakeGpu) -> None:
    made = plan(folder)
    assert kinds(made) == MIXED
    layers = read_source(folder / "model.onnx").plannable
    for name, candidate in made.selection.items():
        cost = chain_cost(layers[name], candidate).macs / MACS_PER_MS
        expected = {"fused": LAUNCH_MS + 0.1 * cost, "native": 3 * LAUNCH_MS + cost / 4}
        if candidate.form == "tucker2":
            exact = REST_MS + expected[candidate.implementation]
            assert candidate.latency_ms == pytest.approx(exact)
    assert gpu.log


@pytest.mark.parametrize(
    ("speed", "slowness", "precision"), [(50.0, 50.0, "int8"), (1.0, 0.1, "fp16")]
)
def test_where_one_always_wins_it_is_always_chosen(
    folder: Path, gpu: FakeGpu, speed: float, slowness: float, precision: str
) -> None:
    gpu.int8_speed, gpu.slowness_at = speed, {32: slowness, 48: slowness}
    assert {kind for kind, _ in kinds(plan(folder)).values()} == {precision}


def test_a_layer_that_no_low_rank_fits_may_be_int8_as_it_came(folder: Path, gpu: FakeGpu) -> None:
    """What dense INT8 rounds is within the limit, what a rank loses is not."""
    gpu.int8_speed = 4.0
    made = plan(folder, max_error=0.08)
    dense = {n: c.candidate for n, c in made.layers.items() if c.candidate.form == "dense"}
    assert any(candidate.precision == "int8" for candidate in dense.values())
    assert made.network is not None
    assert 0 < made.network.error <= 0.08
    assert made.network.ratio < 1


def test_rounding_counts_as_error(folder: Path, gpu: FakeGpu) -> None:
    made = plan(folder, max_error=1e-4)
    assert not made.selection
    assert {c.candidate.precision for c in made.layers.values()} == {"fp16"}
    assert gpu.log


def test_the_plan_says_so_in_its_file(folder: Path, gpu: FakeGpu) -> None:
    made = plan(folder, output=folder / "made.json")
    listed = json.loads((folder / "made.json").read_text())["layers"]
    assert {n: (x["precision"], x["implementation"]) for n, x in listed.items()} == MIXED
    assert read_plan(folder / "made.json") == made
    assert gpu.log


def test_a_second_plan_measures_nothing_and_another_form_of_qdq_all_int8_layers(
    folder: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan(folder)
    assert plan(folder).measurements == 0
    with Store() as store:
        rows = store._connection.execute("SELECT kind, description FROM measurements").fetchall()
    int8 = [d for kind, d in rows if kind == "layer" and '"precision": "int8"' in _candidate(d)]
    assert 0 < len(int8) < first.measurements
    monkeypatch.setattr("tdc_calibration.int8_engine_build.REVISION", 99)
    assert plan(folder).measurements == len(int8)
    assert gpu.log


def _candidate(description: str) -> str:
    return json.dumps(json.loads(description)["candidate"])


def test_all_three_are_built_and_the_mixed_one_ships(folder: Path, gpu: FakeGpu) -> None:
    artifact = build(folder)
    engine = engine_of(folder)
    assert {"source", "native", "fused", "int8", "mixed"} <= set(engine["forms"])
    assert engine["form"] == "mixed"
    assert engine["forms"]["mixed"]["time_ms"] == min(
        f["time_ms"] for f in engine["forms"].values()
    )
    assert engine["forms"]["mixed"]["int8_layers"] == ["conv2", "conv3"]
    assert engine["forms"]["int8"]["int8_layers"] == ["conv1", "conv2", "conv3"]
    assert engine["chains"]["conv1"] == "fused"
    assert kinds(artifact.plan) == MIXED
    assert artifact.decision == "compressed"
    assert gpu.log


def test_a_fused_layer_has_no_qdq_around_it(folder: Path, gpu: FakeGpu) -> None:
    build(folder)
    model = onnx.load_model_from_string((folder / "out.engine").read_bytes())
    made_by = {output: node for node in model.graph.node for output in node.output}
    (fused,) = (node for node in model.graph.node if node.domain == "tdc")
    assert not any(
        made_by[name].op_type == "DequantizeLinear" for name in fused.input if name in made_by
    )
    held = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert {held[name] for name in fused.input if name in held} == {onnx.TensorProto.FLOAT16}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    assert {made_by[node.input[1]].op_type for node in convs} == {"DequantizeLinear"}
    assert gpu.log


def test_int8_alone_ships_where_mixing_costs(folder: Path, gpu: FakeGpu) -> None:
    """The plugin's layer is fast alone, and not in the network."""
    made = plan(folder)
    gpu.penalties = {"conv1/last": 1.0}
    artifact = build(folder, plan=made)
    assert engine_of(folder)["form"] == "int8"
    assert {precision for precision, _ in kinds(artifact.plan).values()} == {"int8"}
    assert engine_of(folder)["chains"]["conv1"] == "native"


def test_fp16_ships_where_int8_costs(
    folder: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(folder)
    original = engine_forms.Workshop.verify

    def verify(shop: Any, engine: Any, form: str) -> Any:
        found = original(shop, engine, form)
        return replace(found, error=9.0) if form in ("int8", "mixed") else found

    monkeypatch.setattr(engine_forms.Workshop, "verify", verify)
    gpu.slowness_at = {32: 0.1, 48: 0.1}
    artifact = build(folder, plan=made)
    assert engine_of(folder)["form"] == "fused"
    chains = {n: c for n, c in artifact.plan.selection.items() if c.form == "tucker2"}
    assert "conv1" in chains
    assert {(c.precision, c.implementation) for c in chains.values()} == {("fp16", "fused")}
    assert {precision for precision, _ in kinds(artifact.plan).values()} == {"fp16"}


def test_a_given_plan_is_applied_as_it_says(folder: Path, gpu: FakeGpu) -> None:
    made = plan(folder)
    layers = dict(made.layers)
    dense = replace(layers["conv3"], candidate=Candidate("dense"))
    given = replace(made, layers={**layers, "conv3": dense})
    write_plan(given, folder / "given.json")
    build(folder, plan=folder / "given.json")
    assert engine_of(folder)["forms"]["mixed"]["int8_layers"] == ["conv2"]
    assert gpu.log
