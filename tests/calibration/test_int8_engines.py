"""Builds of engines with a form in INT8, with TensorRT replaced."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
from tdc_calibration.int8_engine_build import EngineQuantiser

from tdc_deploy import api
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.backends.tensorrt import engine as engine_module
from tdc_deploy.backends.tensorrt.inspector import EngineLayer, LayerTensor
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.precision import check_precision
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import model_of
from tdc_deploy.planner import Goal
from tdc_deploy.samples import Samples
from tdc_deploy.sidecar import read_sidecar
from tdc_deploy.source import Source, read_source
from tests.builders import images
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


def test_the_int8_form_is_fp16_where_it_is_not_int8(folder: Path, fake: FakeTensorRT) -> None:
    """A Cast between DequantizeLinear and a convolution would cost the INT8 kernel."""
    build(folder)
    made = fake.built[-1].model
    ends = {value.name for value in (*made.graph.input, *made.graph.output)}
    casts = [node for node in made.graph.node if node.op_type == "Cast"]
    assert len(casts) <= 2 + 2  # of the image and the logits, and softmax and the like between
    types = {t.name: t.data_type for t in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert types[node.input[1]] == onnx.TensorProto.FLOAT16
    convs = [node for node in made.graph.node if node.op_type == "Conv"]
    made_by = {output: node.op_type for node in made.graph.node for output in node.output}
    assert {made_by[name] for node in convs for name in node.input[:2]} == {"DequantizeLinear"}
    assert {types[node.input[2]] for node in convs if node.input[2:]} == {onnx.TensorProto.FLOAT16}
    assert any(ends & {*node.input, *node.output} for node in casts)


def test_int8_does_not_ship_where_it_is_slower(folder: Path, fake: FakeTensorRT) -> None:
    fake.ratios["int8"] = 0.7
    artifact = build(folder)
    assert artifact.ratio.value == 0.6
    assert artifact.reason.startswith("fused engine")
    assert "int8 0.700" in artifact.reason


@pytest.mark.skipif(
    onnxruntime.__version__.startswith("1.23."),
    reason="stands for TensorRT by ONNX Runtime, whose 1.23 computes float16 Q/DQ otherwise",
)
def test_layers_go_back_to_fp16_for_the_limit(folder: Path, fake: FakeTensorRT) -> None:
    fake.ratios = {"source": 1.0, "fused": 0.8, "int8": 0.5}
    free = build(folder, "chain.onnx")
    all_rounded = rounded(fake.built[-1].model)
    fake.restart()
    limit = free.comparison.error / 2
    artifact = build(folder, "chain.onnx", max_error=limit)
    assert artifact.ratio.value == 0.5
    assert 0 < artifact.comparison.error <= limit
    assert 0 < rounded(fake.built[-1].model) < all_rounded
    assert any("stay fp16, for the limits" in warning for warning in artifact.warnings)
    made = fake.built[-1].model
    types = {t.name: t.data_type for t in made.graph.initializer}
    kept = [n for n in made.graph.node if n.op_type == "Conv" and n.input[1] in types]
    assert kept
    assert {types[node.input[1]] for node in kept} == {onnx.TensorProto.FLOAT16}


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


def test_where_every_layer_goes_back_there_is_no_int8_form(
    folder: Path, fake: FakeTensorRT
) -> None:
    """It would be the fp16 engine once more, and faster by noise."""
    fake.ratios = {"source": 1.0, "native": 2.0, "fused": 2.0, "int8": 0.9}
    artifact = build(folder, "chain.onnx", max_error=2e-3)
    assert artifact.decision == "source"
    assert not any(prepared.int8 for prepared in fake.built)
    assert any("no layer is left in INT8 within the limits" in text for text in artifact.warnings)


def test_threads_are_obeyed(
    folder: Path, fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = OnnxRuntimeBackend.runner, set()

    def runner(backend: OnnxRuntimeBackend, model: Any) -> Any:
        seen.add(backend.threads)
        return original(backend, model)

    monkeypatch.setattr(OnnxRuntimeBackend, "runner", runner)
    build(folder, threads=2)
    assert seen == {2}
    assert fake.built


def quantiser(source: Source, verifying: float) -> EngineQuantiser:
    """With the same samples to calibrate on, and others of some size to verify on."""
    seen = Samples({"image": images(32)}, 1)
    samples = Samples({"image": verifying * images(16, seed=5)}, 1, repairs=seen)
    return EngineQuantiser(source, samples, Goal(max_error=1e9), None, OnnxRuntimeBackend(1))


def test_what_verifies_does_not_calibrate(folder: Path) -> None:
    """Neither the calibrator nor a range follows the samples that verify."""
    source = read_source(folder / "model.onnx")
    made = [quantiser(source, size)(source.network, None, ()) for size in (0.01, 30.0)]
    assert made[0].calibrator == made[1].calibrator
    assert len({model_of(one.network).SerializeToString() for one in made}) == 1
