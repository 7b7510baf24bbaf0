"""`bench` of engines, on a TensorRT that is replaced by ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from tdc_deploy import api
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.backends.tensorrt import api as tensorrt_api
from tdc_deploy.backends.tensorrt import requirements, runner
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.runner import Runnable
from tdc_deploy.benchmark import bench_models
from tdc_deploy.errors import TdcError
from tdc_deploy.progress import silent
from tests.fake_tensorrt import FakeTensorRT, fill

SHORT: dict[str, Any] = {"iterations": 2, "duration": 0, "warmup": 0, "progress": silent}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine that takes 1 to 8 images; its file is an ONNX model."""
    folder = fill(tmp_path)
    fake = FakeTensorRT(monkeypatch, folder / "plugin.so")
    fake.ratios = {"source": 1.0, "native": 0.5, "fused": 0.9}  # native: no plugin
    one, two, eight = ({"image": (n, 32, 24, 24)} for n in (1, 2, 8))
    api.build(
        folder / "model.onnx",
        folder / "out.engine",
        plan=folder / "plan.json",
        inputs=folder / "inputs.npz",
        max_error=0.9,
        engine=EngineOptions("fp32", one, two, eight),
    )
    return folder / "out.engine"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Runnable]:
    """This machine, with a GPU; the engines that it runs."""
    ran: list[Runnable] = []

    def run(engine: Runnable) -> Any:
        ran.append(engine)
        return OnnxRuntimeBackend(1).runner(onnx.load_model_from_string(engine.plan))

    monkeypatch.setattr(requirements, "what_is_missing", lambda _: [])
    monkeypatch.setattr(tensorrt_api, "tensorrt", lambda: SimpleNamespace(__version__="10.9.0.34"))
    monkeypatch.setattr(runner, "EngineRunner", run)
    return ran


def test_an_engine_is_timed_at_its_usual_shapes(engine: Path, machine: list[Runnable]) -> None:
    result = bench_models(engine, **SHORT)
    assert (result.batch, result.ratio, len(result.timings)) == (2, None, 1)
    assert result.backend["backend"] == "tensorrt"
    assert machine[0].inputs == {"image": ("float32", (2, 32, 24, 24))}
    assert machine[0].outputs == {"logits": ("float32", (-1, 10))}
    assert machine[0].plan == engine.read_bytes()


def test_an_engine_against_the_model_that_it_was_built_from(
    engine: Path, machine: list[Runnable]
) -> None:
    result = bench_models(
        engine, engine.with_name("model.onnx"), shapes={"image": (4, 32, 24, 24)}, **SHORT
    )
    assert result.batch == 4
    assert result.ratio is not None
    assert machine


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"image": (9, 32, 24, 24)}, r"image: \[9, 32, 24, 24\]"),
        ({"image": (2, 32, 24)}, r"image: \[2, 32, 24\]"),
        ({"picture": (1,)}, "no input is called 'picture'"),
    ],
)
@pytest.mark.usefixtures("machine")
def test_shapes_outside_the_engines_range(engine: Path, shapes: Any, message: str) -> None:
    with pytest.raises(TdcError, match=message):
        bench_models(engine, shapes=shapes, **SHORT)


def test_what_is_missing_is_named(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def missing(plugin: bool) -> list[str]:
        asked.append(plugin)
        return ["an NVIDIA GPU"]

    monkeypatch.setattr(requirements, "what_is_missing", missing)
    with pytest.raises(TdcError, match="cannot run on this machine; missing: an NVIDIA GPU"):
        bench_models(engine, **SHORT)
    assert asked == [False]  # it has no node of ours


@pytest.mark.usefixtures("machine")
def test_an_engine_of_another_tensorrt(engine: Path) -> None:
    sidecar = engine.with_name(engine.name + ".json")
    content = json.loads(sidecar.read_text())
    content["backend"]["version"] = "10.3.0"
    sidecar.write_text(json.dumps(content))
    with pytest.raises(TdcError, match=r"built by TensorRT 10\.3\.0"):
        bench_models(engine, **SHORT)


def test_an_engine_without_its_sidecar(engine: Path) -> None:
    engine.with_name(engine.name + ".json").unlink()
    with pytest.raises(TdcError, match="has no sidecar"):
        bench_models(engine, **SHORT)
    with pytest.raises(TdcError, match="no engine at"):
        bench_models(engine.with_name("none.plan"), **SHORT)
