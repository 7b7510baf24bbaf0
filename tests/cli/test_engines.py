"""`build -o model.engine` and `inspect model.engine`, with TensorRT replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdc_deploy.plan_file import read_plan
from tdc_deploy.sidecar import read_sidecar
from tests.cli.conftest import Run
from tests.fake_gpu_times import FakeGpu
from tests.fake_tensorrt import FakeTensorRT, fill


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FakeTensorRT:
    return FakeTensorRT(monkeypatch, folder / "plugin.so")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FakeGpu:
    return FakeGpu(monkeypatch, folder / "plugin.so")


def words(folder: Path, output: str) -> list[object]:
    """A build that works."""
    model = ["build", folder / "model.onnx", "-o", folder / output]
    return [
        *model,
        "--inputs",
        folder / "inputs.npz",
        "--plan",
        folder / "plan.json",
        "--max-error",
        0.9,
    ]


def test_inspect_prints_the_sidecar_where_there_is_no_tensorrt(
    folder: Path, fake: FakeTensorRT, run: Run
) -> None:
    assert run(*words(folder, "out.engine"), "--precision", "fp16").code == 0
    found = run("inspect", folder / "out.engine")
    assert found.code == 0
    for text in (
        "input image: float32 1x32x24x24 (min)",
        "output logits: float32 -1x10",
        "TensorRT 10.9.0.34 on A100, compute capability 8.0; computes in fp16",
        "fused: 0.600 ms",
        "needs plugin.so",
        "layers are not shown: the Python package tensorrt is not installed",
    ):
        assert text in found.out
    as_json = run("inspect", folder / "out.engine", "--json").json
    assert as_json["sidecar"] == read_sidecar(folder / "out.engine")
    assert as_json["layers"] is None
    assert len(fake.built) == 3


def test_a_plan_on_tensorrt(folder: Path, gpu: FakeGpu, run: Run) -> None:
    gpu.slowness_at = {32: 0.5, 48: 50.0}
    words = ["plan", folder / "model.onnx", "-o", folder / "made.json"]
    more = ["--inputs", folder / "inputs.npz", "--max-error", 5, "--backend", "tensorrt"]
    found = run(*words, *more, "--precision", "fp16", "--timing-cache", folder / "t.cache")
    assert found.code == 0, found.err
    assert "tucker2 16→16 native" in found.out
    made = read_plan(folder / "made.json")
    assert {c.implementation for c in made.selection.values()} == {"fused", "native"}
    assert {options.timing_cache for options in gpu.options} == {folder / "t.cache"}
    built = run(
        "build", words[1], "-o", folder / "o.engine", *more[:4], "--plan", folder / "made.json"
    )
    assert built.code == 0, built.err


def test_inspect_says_what_it_lacks(folder: Path, run: Run) -> None:
    (folder / "bare.engine").write_bytes(b"plan")
    found = run("inspect", folder / "bare.engine")
    assert found.code == 2
    assert "no sidecar, and its layers cannot be read" in found.err
    assert run("inspect", folder / "none.plan").code == 2


def test_the_command_prints_what_was_built(folder: Path, fake: FakeTensorRT, run: Run) -> None:
    found = run(
        *words(folder, "out.plan"),
        *("--optShapes", "image:1x32x24x24", "--maxShapes", "image:4x32x24x24"),
        *("--timingCacheFile", folder / "t.cache", "--memPoolSize", "workspace:64"),
    )
    assert found.code == 0, found.err
    assert "compressed, verified on 8 inputs" in found.out
    sidecar = read_sidecar(folder / "out.plan")
    assert sidecar is not None
    assert sidecar["inputs"][0]["max"] == [4, 32, 24, 24]
    assert sidecar["engine"]["workspace_mib"] == 64
    assert fake.built


def test_plans_and_inspect_say_which_layers_are_int8(folder: Path, gpu: FakeGpu, run: Run) -> None:
    gpu.slowness_at, gpu.int8_speed = {32: 0.1, 48: 50.0}, 4.0
    more = ["--inputs", folder / "inputs.npz", "--max-error", 5, "--precision", "int8"]
    words = ["plan", folder / "model.onnx", "-o", folder / "made.json", "--backend", "tensorrt"]
    found = run(*words, *more)
    assert found.code == 0, found.err
    assert " int8" in found.out
    words = ["build", folder / "model.onnx", "-o", folder / "out.engine"]
    built = run(*words, *more, "--plan", folder / "made.json", "--report", folder / "page.html")
    assert built.code == 0, built.err
    assert ", INT8" in (folder / "page.html").read_text()
    shown = run("inspect", folder / "out.engine").out
    assert "mixed: " in shown
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if "conv" in line}
    assert rows["conv1"][-2:] == ["fused", "fp16"]
    assert rows["conv2"][-1] == "int8"
