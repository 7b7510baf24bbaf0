"""The commands, where nothing is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import onnxruntime

from tdc_deploy.profiling.store import Store
from tdc_deploy.sidecar import sidecar_path
from tests.builders import chain_cnn, save_model, small_cnn
from tests.cli.conftest import Run


def build(folder: Path, *more: object) -> list[object]:
    words: list[object] = ["build", folder / "model.onnx", "-o", folder / "out.onnx"]
    return [*words, "--inputs", folder / "inputs.npz", "--max-error", 0.9, *more]


def test_build_prints_before_and_after(folder: Path, run: Run) -> None:
    result = run(*build(folder, "--latency-budget", 0.5))
    assert result.code == 0
    for line in ("time, median ms", "accuracy", "relative error", "compressed, verified on 8"):
        assert line in result.out
    onnxruntime.InferenceSession(str(folder / "out.onnx"))


def test_build_json_is_the_sidecar(folder: Path, run: Run) -> None:
    result = run(*build(folder, "--latency-budget", 0.5, "--json"))
    assert result.json == json.loads(sidecar_path(folder / "out.onnx").read_text())
    assert result.json["decision"] == "compressed"
    assert result.json["network"]["value"] <= 0.5


def test_random_inputs_are_said_to_verify_nothing(folder: Path, run: Run) -> None:
    words = ["build", folder / "model.onnx", "-o", folder / "out.onnx", "--max-error", 2]
    result = run(*words, "--latency-budget", 0.5)
    assert "UNVERIFIED" in result.out
    assert json.loads(sidecar_path(folder / "out.onnx").read_text())["accuracy"] == "UNVERIFIED"


def test_a_refused_network_is_said_with_its_reason(folder: Path, run: Run) -> None:
    result = run(*build(folder, "--max-error", 1e-7))
    assert result.code == 0
    assert "the source model, unchanged" in result.out


def test_an_unmet_budget_is_a_warning(folder: Path, run: Run) -> None:
    result = run(*build(folder, "--max-error", 0.02, "--latency-budget", 0.1))
    assert result.code == 0
    assert "was not met" in result.err


def test_quiet_prints_nothing(folder: Path, run: Run) -> None:
    result = run(*build(folder, "--quiet"))
    assert (result.code, result.out, result.err) == (0, "", "")


def test_verbose_prints_steps_and_layers(folder: Path, run: Run) -> None:
    result = run(*build(folder, "--latency-budget", 0.5, "--verbose"))
    assert "measuring candidates" in result.err
    assert "conv2" in result.out


def test_a_plan_is_written_edited_and_built(folder: Path, run: Run) -> None:
    plan = folder / "plan.json"
    words = ["plan", folder / "model.onnx", "-o", plan, "--max-error", 2, "--latency-budget", 0.5]
    result = run(*words)
    assert result.code == 0
    assert "predicted" in result.out
    data = json.loads(plan.read_text())
    data["layers"]["conv2"] = {"form": "tucker2", "r_in": 20, "r_out": 12}
    plan.write_text(json.dumps(data))
    result = run(*build(folder, "--max-error", 2, "--plan", plan, "--json"))
    assert result.code == 0
    assert result.json["plan"]["layers"]["conv2"]["r_in"] == 20


def test_plan_json(folder: Path, run: Run) -> None:
    result = run("plan", folder / "model.onnx", "--max-error", 2, "--speedup", 2, "--json")
    network = result.json["network"]
    assert network["measured_ms"] <= 0.5 * network["dense_ms"]


def test_the_papers_solver(folder: Path, run: Run) -> None:
    words = ["plan", folder / "model.onnx", "--max-error", 9, "--solver", "tdc", "--json"]
    result = run(*words, "--flops-budget", 0.6)
    layer = result.json["layers"]["conv2"]
    assert layer["form"] == "tucker2"
    c, m, k = 48, 48, 9
    macs = c * layer["r_in"] + k * layer["r_in"] * layer["r_out"] + layer["r_out"] * m
    assert macs <= 0.6 * c * m * k


def test_inspect_lists_layers_before_and_after(folder: Path, run: Run) -> None:
    before = run("inspect", folder / "model.onnx", "--json").json
    assert [layer["name"] for layer in before["layers"]] == ["conv1", "conv2", "conv3"]
    assert before["layers"][1]["flops"] == 2 * 48 * 48 * 9 * 24 * 24
    run(*build(folder, "--latency-budget", 0.4))
    after = run("inspect", folder / "out.onnx", "--json").json
    assert after["fused"] >= 1
    assert after["artifact"] == "compressed, VERIFIED"
    chain = next(layer for layer in after["layers"] if layer["kind"] == "fused chain")
    assert chain["latency_ms"] > 0
    assert chain["error"] > 0
    assert after["flops"] < before["flops"]


def test_inspect_of_a_source_shows_nothing_of_the_plan_that_was_refused(
    folder: Path, run: Run
) -> None:
    run("plan", folder / "model.onnx", "--max-error", 9, "-o", folder / "plan.json")
    run(*build(folder, "--plan", folder / "plan.json", "--max-error", 1e-6))
    found = run("inspect", folder / "out.onnx", "--json").json
    assert found["artifact"] == "source, VERIFIED"
    planned = json.loads((folder / "plan.json").read_text())["layers"]
    assert any(layer["form"] != "dense" for layer in planned.values())
    for layer in found["layers"]:
        assert layer["error"] is None
        assert layer["latency_ms"] == planned[layer["name"]]["dense_ms"]


def test_inspect_says_why_a_layer_stays_dense(folder: Path, run: Run) -> None:
    model = small_cnn()
    conv = next(node for node in model.graph.node if node.name == "conv2")
    conv.attribute.append(onnx.helper.make_attribute("group", 48))
    weight = next(t for t in model.graph.initializer if t.name == conv.input[1])
    values = onnx.numpy_helper.to_array(weight)[:, :1].copy()
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    save_model(model, folder / "depthwise.onnx")
    result = run("inspect", folder / "depthwise.onnx")
    assert "stays dense: it is depthwise" in result.out


def test_inspect_leaves_a_sidecar_of_another_file_aside(folder: Path, run: Run) -> None:
    sidecar = {"format": "tdc-deploy artifact", "version": 1, "artifact": {"sha256": "0"}}
    (folder / "model.onnx.json").write_text(json.dumps(sidecar))
    result = run("inspect", folder / "model.onnx")
    assert result.code == 0
    assert "sidecar is not used" in result.out


def test_inspect_time_measures_and_keeps(folder: Path, run: Run) -> None:
    store = folder / "store.sqlite3"
    result = run("inspect", folder / "model.onnx", "--time", "--store", store, "--json")
    assert all(layer["latency_ms"] > 0 for layer in result.json["layers"])
    with Store(store) as measurements:
        assert len(measurements) >= 2


def test_inspect_finds_chains_of_other_tools(folder: Path, run: Run) -> None:
    save_model(chain_cnn(), folder / "chain.onnx")
    result = run("inspect", folder / "chain.onnx", "--json").json
    assert [layer["kind"] for layer in result["layers"]].count("chain") == 1
    assert result["fused"] == 0


def test_bench_one_model(folder: Path, run: Run) -> None:
    quick = ["--iterations", 5, "--duration", 0, "--warmup", 0]
    result = run("bench", folder / "model.onnx", *quick, "--json").json
    assert result["ratio"] is None
    (timing,) = result["timings"]
    assert 0 < timing["median"] <= timing["p90"] <= timing["p95"] <= timing["p99"]


def test_bench_two_models(folder: Path, run: Run) -> None:
    quick = ["--iterations", 30, "--duration", 0, "--warmup", 0]
    result = run("bench", folder / "model.onnx", folder / "model.onnx", *quick)
    assert result.code == 0
    assert "95% interval" in result.out
    assert result.out.count("model.onnx") == 2


def test_doctor(run: Run) -> None:
    result = run("doctor", "--json")
    assert result.code == 0
    checks = {check["name"]: check for check in result.json}
    assert checks["onnxruntime"]["status"] == "ok"
    assert checks["latency store"]["status"] == "ok"


def test_version(run: Run) -> None:
    assert run("--version").out.startswith("tdc-deploy 0.")


def test_an_interrupted_build_writes_nothing_and_keeps_its_measurements(tmp_path: Path) -> None:
    """A real process and a real Ctrl-C, as soon as the first measurements are on disk."""
    save_model(small_cnn(), tmp_path / "model.onnx")
    store = tmp_path / "store.sqlite3"
    words = ["build", "model.onnx", "-o", "out.onnx", "--max-error", "2", "--store", str(store)]
    command = [sys.executable, "-m", "tdc_deploy.cli.main", *words]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        _wait_for_measurements(store, process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode not in (0, 2)
    assert "Traceback" not in said
    assert not (tmp_path / "out.onnx").exists()
    assert not list(tmp_path.glob(".out*"))
    with Store(store) as measurements:
        assert len(measurements) >= 1


def _wait_for_measurements(store: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if store.is_file() and os.path.getsize(store):  # noqa: PTH202
            with Store(store) as measurements:
                if len(measurements):
                    return
        time.sleep(0.02)
    raise AssertionError("the build measured nothing, or ended before it was interrupted")
