"""Builds of engines with a form in INT8, with TensorRT replaced."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from tdc_deploy import api
from tdc_deploy.backends.tensorrt import engine as engine_module
from tdc_deploy.backends.tensorrt.inspector import EngineLayer, LayerTensor
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.precision import check_precision
from tdc_deploy.errors import TdcError
from tdc_deploy.sidecar import read_sidecar
from tests.fake_tensorrt import FakeTensorRT, fill


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FakeTensorRT:
    made = FakeTensorRT(monkeypatch, folder / "plugin.so")
    made.ratios = {"source": 1.0, "native": 0.8, "fused": 0.6, "int8": 0.4}
    return made


def build(folder: Path, model: str = "model.onnx", **options: Any) -> Any:
    given: dict[str, Any] = {"inputs": folder / "inputs.npz", "max_error": 0.9, "precision": "int8"}
    if model == "model.onnx":
        given["plan"] = folder / "plan.json"
    return api.build(folder / model, folder / "out.engine", **{**given, **options})


def rounded(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "QuantizeLinear" for node in model.graph.node)


def test_int8_is_a_form_of_its_own_and_ships_where_it_is_fastest(
    folder: Path, fake: FakeTensorRT
) -> None:
    artifact = build(folder)
    assert [prepared.int8 for prepared in fake.built] == [False, False, False, True]
    made = fake.built[-1].model
    convs = [node for node in made.graph.node if node.op_type == "Conv"]
    assert len(convs) == 5  # the plan's chain as three
    assert rounded(made) >= 2 * len(convs)
    assert not any(rounded(prepared.model) for prepared in fake.built[:-1])
    assert artifact.ratio.value == 0.4
    sidecar = read_sidecar(artifact.path)
    assert sidecar is not None
    assert sidecar["engine"]["form"] == "int8"
    assert sidecar["engine"]["precision_asked"] == "int8"
    assert list(sidecar["engine"]["forms"]) == ["source", "native", "fused", "int8"]
    assert sidecar["engine"]["chains"] == {"conv2": "native"}


def test_nothing_that_is_float32_in_the_int8_form_is_cast(folder: Path, fake: FakeTensorRT) -> None:
    build(folder)
    assert not any(node.op_type == "Cast" for node in fake.built[-1].model.graph.node)
    assert any(node.op_type == "Cast" for node in fake.built[0].model.graph.node)


def test_int8_does_not_ship_where_it_is_slower(folder: Path, fake: FakeTensorRT) -> None:
    fake.ratios["int8"] = 0.7
    artifact = build(folder)
    assert artifact.ratio.value == 0.6
    assert artifact.reason.startswith("fused engine")
    assert "int8 0.700" in artifact.reason


def test_layers_go_back_to_float32_for_the_limit(folder: Path, fake: FakeTensorRT) -> None:
    fake.ratios = {"source": 1.0, "fused": 0.8, "int8": 0.5}
    free = build(folder, "chain.onnx")
    all_rounded = rounded(fake.built[-1].model)
    fake.restart()
    limit = free.comparison.error / 2
    artifact = build(folder, "chain.onnx", max_error=limit)
    assert artifact.ratio.value == 0.5
    assert 0 < artifact.comparison.error <= limit
    assert 0 < rounded(fake.built[-1].model) < all_rounded
    assert any("stay float32" in warning for warning in artifact.warnings)


def test_without_a_plan_the_model_itself_is_quantised(folder: Path, fake: FakeTensorRT) -> None:
    fake.ratios = {"source": 1.0, "fused": 0.8, "int8": 0.5}
    artifact = build(folder, "chain.onnx")
    assert artifact.decision == "converted"
    assert artifact.ratio.value == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": None}, "--precision int8 without data"),
        ({"precision": "int4"}, "--precision is 'int4'"),
        ({"precision": "fp16", "calibrator": "mse"}, "--calibrator with"),
        ({"max_accuracy_drop": 1.0}, "inputs without labels"),
    ],
    ids=str,
)
def test_bad_input_is_refused(
    folder: Path, fake: FakeTensorRT, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TdcError, match=message):
        build(folder, **options)
    assert fake.built == []
    assert not (folder / "out.engine").exists()


def test_int8_stands_beside_fp16() -> None:
    asked = EngineOptions().with_precision("int8")
    assert (asked.precision, asked.int8, asked.asked) == ("fp16", True, "int8")
    again = asked.with_precision("tf32")
    assert (again.precision, again.int8, again.asked) == ("tf32", False, "tf32")


def layer(dtype: str) -> EngineLayer:
    tensors = (LayerTensor("x", dtype),)
    return EngineLayer("conv", "CaskConvolution", tensors, tensors, "fprop")


def test_an_int8_engine_must_compute_in_it() -> None:
    built = check_precision([layer("int8"), layer("float32")], "int8")
    assert built.layers == {"int8": 1, "float32": 1}
    assert check_precision([layer("int8")], "int8").name == "int8"
    with pytest.raises(TdcError, match="computes in"):
        check_precision([layer("float16")], "int8")


@pytest.mark.parametrize(("version", "flag"), [("8.6.1", True), ("10.9.0", False)])
def test_older_versions_are_allowed_int8(
    monkeypatch: pytest.MonkeyPatch, version: str, flag: bool
) -> None:
    """From strong typing on the file says it, and the flag goes away."""
    settings: dict[str, Any] = {}
    module = SimpleNamespace(CreateConfig=settings.update, Profile=lambda: None)
    monkeypatch.setitem(__import__("sys").modules, "polygraphy.backend.trt", module)
    trt = SimpleNamespace(
        __version__=version, ProfilingVerbosity=SimpleNamespace(DETAILED="detailed")
    )
    asked = EngineOptions().with_precision("int8")
    engine_module.create_config(trt, {}, asked, None, None)
    assert settings.get("int8", False) is flag
    settings.clear()
    engine_module.create_config(trt, {}, EngineOptions(), None, None)
    assert "int8" not in settings
