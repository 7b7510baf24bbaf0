"""From a model to an engine's artifact, with TensorRT replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from tdc_deploy import api, engine_forms
from tdc_deploy.backends.tensorrt import machine
from tdc_deploy.backends.tensorrt.options import EngineOptions, HardwareCompatibility
from tdc_deploy.backends.tensorrt.prepare import Prepared
from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.chips import find_device
from tdc_deploy.profiling.analytical.tactics import decode
from tdc_deploy.runtime.engine_info import EngineInfo, read_engine_info
from tdc_deploy.serving.model import read_served
from tdc_deploy.serving.repository import add_model
from tdc_deploy.sidecar import read_sidecar
from tdc_deploy.types import Ratio
from tdc_deploy.verify import Comparison
from tests.fake_tensorrt import RATIOS, FakeTensorRT, fill, scaled, with_bodies


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FakeTensorRT:
    return FakeTensorRT(monkeypatch, folder / "plugin.so")


def build(folder: Path, model: str = "model.onnx", **options: Any) -> Any:
    defaults: dict[str, Any] = {"inputs": folder / "inputs.npz", "max_error": 0.9}
    if model == "model.onnx":
        defaults["plan"] = folder / "plan.json"
    return api.build(folder / model, folder / "out.engine", **{**defaults, **options})


def plugin_nodes(prepared: Prepared) -> list[str]:
    return [node.op_type for node in prepared.model.graph.node if node.domain == "tdc"]


def test_a_plan_makes_three_forms_and_the_fastest_is_shipped(
    folder: Path, fake: FakeTensorRT
) -> None:
    artifact = build(folder)
    assert [plugin_nodes(prepared) for prepared in fake.built] == [[], [], ["TuckerConv"]]
    convs = [sum(n.op_type == "Conv" for n in prepared.model.graph.node) for prepared in fake.built]
    assert convs == [3, 5, 2]
    assert fake.loaded == [folder / "plugin.so"]
    assert artifact.decision == "compressed"
    assert artifact.ratio.value == RATIOS["fused"]
    assert 0 < artifact.comparison.error < 0.9
    assert (folder / "out.engine").read_bytes() == with_bodies(
        fake.built[2].model
    ).SerializeToString()


def test_the_sidecar_says_what_it_takes_and_what_it_was_built_with(
    folder: Path, fake: FakeTensorRT
) -> None:
    one, two, eight = ({"image": (n, 32, 24, 24)} for n in (1, 2, 8))
    options = EngineOptions("fp16", one, two, eight, workspace_mib=256)
    artifact = build(folder, engine=options)
    found = read_sidecar(artifact.path)
    assert found is not None
    assert found["inputs"] == [
        {
            "name": "image",
            "dtype": "float32",
            "min": [1, 32, 24, 24],
            "opt": [2, 32, 24, 24],
            "max": [8, 32, 24, 24],
        }
    ]
    assert found["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [-1, 10]}]
    assert found["precision"] == ["float16"]
    assert found["accuracy"] == "VERIFIED"
    assert found["backend"]["version"] == "10.9.0.34"
    assert found["backend"]["device"] == "A100"
    assert found["backend"]["compute_capability"] == "8.0"
    assert found["plugin"]["name"] == "plugin.so"
    assert found["plugin"]["version"] == "1"
    assert len(found["plugin"]["sha256"]) == 64
    assert found["engine"]["form"] == "fused"
    assert found["engine"]["workspace_mib"] == 256
    assert {form: entry["ratio"] for form, entry in found["engine"]["forms"].items()} == RATIOS
    assert list(found["plan"]["layers"]) == ["conv2"]
    assert found["planned_shapes"] == {"image": [2, 32, 24, 24]}
    assert found["source"]["file"] == "model.onnx"
    assert len(fake.built) == 3


@pytest.mark.parametrize(
    ("options", "capability", "anywhere"),
    [
        (EngineOptions(), "8.0", False),
        (EngineOptions(version_compatible=True, hardware_compatibility="ampere_plus"), None, True),
    ],
)
def test_sessions_and_triton_read_what_the_sidecar_says(
    folder: Path, fake: FakeTensorRT, options: EngineOptions, capability: str, anywhere: bool
) -> None:
    artifact = build(folder, engine=options)
    info = read_engine_info(artifact.path, artifact.path.read_bytes())
    assert info == EngineInfo("10.9.0.34", 80, True, anywhere, anywhere)
    served = read_served(artifact.path)
    assert (served.tensorrt, served.capability) == ("10.9.0.34", capability)
    assert [tensor.name for tensor in served.inputs] == ["image"]
    assert len(fake.built) == 3


def test_a_form_that_cannot_be_built_is_left_out(
    folder: Path, fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_engine(prepared: Prepared, *more: Any) -> Any:
        if plugin_nodes(prepared):
            raise TdcError("no kernel for it")
        return fake._build(prepared, *more)

    monkeypatch.setattr(engine_forms, "build_engine", build_engine)
    artifact = build(folder)
    assert artifact.ratio.value == RATIOS["native"]
    assert "fused form left out: no kernel for it" in artifact.warnings


def test_without_the_sources_own_engine_nothing_is_built(
    folder: Path, fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_engine(*_: Any) -> Any:
        raise TdcError("refused")

    monkeypatch.setattr(engine_forms, "build_engine", build_engine)
    with pytest.raises(TdcError, match="refused"):
        build(folder)
    assert not fake.built
    assert not (folder / "out.engine").exists()


def test_fp16_is_verified_against_the_fp32_model(folder: Path, fake: FakeTensorRT) -> None:
    fake.ratios = {"source": 1.0, "native": 2.0, "fused": 2.0}
    artifact = build(folder, engine=EngineOptions("fp16"))
    assert artifact.decision == "source"
    assert 1e-5 < artifact.comparison.error < 1e-2


def test_what_overflows_in_fp16_stays_float32(folder: Path, fake: FakeTensorRT) -> None:
    """conv2 puts out some 1e6, and conv3 takes it back; the plan decomposes conv2."""
    scaled(folder, conv2_weight=2e4, conv2_bias=2e4, conv3_weight=1 / 2e4)
    artifact = build(folder, engine=EngineOptions("fp16"), max_error=1.5)
    source, native, _ = fake.built
    assert {"conv2", "conv3"} <= set(source.exact)
    assert "conv1" not in source.exact
    assert {"conv2/last", "conv3"} <= set(native.exact)
    for prepared in fake.built:
        types = {tensor.name: tensor.data_type for tensor in prepared.model.graph.initializer}
        kept = {
            node.name
            for node in prepared.model.graph.node
            if node.op_type == "Conv" and types[node.input[1]] == onnx.TensorProto.FLOAT
        }
        assert "conv3" in kept
        assert "conv1" not in kept
    forms = read_sidecar(artifact.path)["engine"]["forms"]  # type: ignore[index]  # it is there
    assert {"conv2", "conv3"} <= set(forms["source"]["float32_nodes"])
    assert artifact.plan.layers["conv2"].candidate.precision == "fp32"
    assert any("conv2" in text and "stay float32" in text for text in artifact.warnings)
    # The rest is rounded to 11 bits.
    fake.restart()
    plain = build(folder, engine=EngineOptions("fp32"), max_error=1.5)
    assert abs(artifact.comparison.error - plain.comparison.error) <= 0.01


def test_the_error_of_the_sources_own_engine_counts_too(folder: Path, fake: FakeTensorRT) -> None:
    fake.ratios = {"source": 1.0, "native": 2.0, "fused": 2.0}
    with pytest.raises(TdcError, match=r"at most 1e-06 \(--fail-above\)"):
        build(folder, engine=EngineOptions("fp16"), fail_above=1e-6)
    assert not (folder / "out.engine").exists()


def test_inputs_and_outputs_in_fp16_are_in_the_sidecar_and_in_tritons_configuration(
    folder: Path, fake: FakeTensorRT
) -> None:
    artifact = build(folder, engine=EngineOptions("fp16", io_precision="fp16"))
    assert 1e-5 < artifact.comparison.error < 0.9
    for prepared in fake.built:
        values = (*prepared.model.graph.input, *prepared.model.graph.output)
        assert {v.type.tensor_type.elem_type for v in values} == {onnx.TensorProto.FLOAT16}
    found = read_sidecar(artifact.path)
    assert found is not None
    assert found["inputs"][0]["dtype"] == found["outputs"][0]["dtype"] == "float16"
    assert found["engine"]["io_precision"] == "fp16"
    pytest.importorskip("tritonclient")
    added = add_model(artifact.path, folder / "repository", "net", plugin=folder / "plugin.so")
    text = (added.folder / "config.pbtxt").read_text()
    assert text.count("data_type: TYPE_FP16") == 2
    assert "TYPE_FP32" not in text


def test_an_engine_without_the_plugin_names_none(folder: Path, fake: FakeTensorRT) -> None:
    fake.ratios["native"] = 0.5
    artifact = build(folder)
    found = read_sidecar(artifact.path)
    assert found is not None
    assert found["engine"]["form"] == "native"
    assert found["plugin"] is None


def test_what_is_not_measurably_faster_is_not_shipped(folder: Path, fake: FakeTensorRT) -> None:
    fake.width = 0.5
    artifact = build(folder)
    assert artifact.decision == "source"
    assert "source engine" in artifact.reason


def test_a_faster_form_is_shipped_though_a_noisier_one_seems_faster_still(
    folder: Path, fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = fake._compare

    def noisy(*arguments: Any) -> Ratio:
        found = compare(*arguments)
        return replace(found, upper=1.2) if found.value == fake.ratios["fused"] else found

    monkeypatch.setattr(engine_forms, "compare_fresh", noisy)
    assert build(folder).ratio.value == fake.ratios["native"]


def test_a_form_beyond_the_error_limit_is_not_shipped(folder: Path, fake: FakeTensorRT) -> None:
    assert build(folder, max_error=1e-3).decision == "source"
    assert len(fake.built) == 3


def give_errors(patch: pytest.MonkeyPatch, *errors: float) -> None:
    """Of the forms, in their order."""
    exact, given = Comparison(0.0, 1.0, None, None, None, 8, verified=True), iter(errors)
    patch.setattr(engine_forms, "compare_outputs", lambda *_: replace(exact, error=next(given)))


def test_a_slower_form_is_shipped_with_a_warning_where_the_source_is_not_close(
    folder: Path, fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_errors(monkeypatch, 0.5, 0.01, 0.02)
    fake.ratios = {"source": 1.0, "native": 1.25, "fused": 1.5}
    artifact = build(folder, max_error=0.1)
    assert artifact.ratio.value == 1.25
    assert artifact.reason.endswith(
        "source 1.000 (over the error limit), native 1.250, fused 1.500"
    )
    (warning,) = artifact.warnings
    assert "the native engine is slower than the model that came in (time 1.250)" in warning
    assert "the source engine has an error of 0.5" in warning
    found = read_sidecar(artifact.path)
    assert found is not None
    assert found["warnings"] == [warning]


def test_a_source_that_is_not_close_is_no_matter_where_another_form_is_faster(
    folder: Path, fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_errors(monkeypatch, 0.5, 0.01, 0.02)
    artifact = build(folder, max_error=0.1)
    assert artifact.ratio.value == fake.ratios["fused"]
    assert artifact.warnings == ()


def test_a_compressed_model_needs_no_plan(folder: Path, fake: FakeTensorRT) -> None:
    fake.ratios = {"source": 1.0, "fused": 0.9}
    artifact = build(folder, "chain.onnx", inputs=None, max_error=None)
    assert [plugin_nodes(prepared) for prepared in fake.built] == [[], ["TuckerConvAdd"]]
    assert artifact.decision == "fused"
    assert not artifact.verified


@pytest.mark.parametrize("strict", [False, True])
def test_what_the_plugin_cannot_run_is_left_out_with_a_warning_that_is_no_missed_goal(
    folder: Path, fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    monkeypatch.setattr("tdc_deploy.backends.tensorrt.prepare.tactics_attribute", lambda *_: [])
    artifact = build(folder, strict=strict)
    assert len(fake.built) == 2
    assert "no kernel of the plugin runs" in artifact.warnings[0]


@pytest.mark.parametrize(
    ("level", "clusters"),
    [("none", True), ("same_compute_capability", True), ("ampere_plus", False)],
)
def test_an_engine_for_other_gpus_has_the_tactics_that_they_run(
    folder: Path,
    fake: FakeTensorRT,
    monkeypatch: pytest.MonkeyPatch,
    level: HardwareCompatibility,
    clusters: bool,
) -> None:
    monkeypatch.setattr(machine, "this_device", lambda: find_device("H200"))
    build(folder, engine=EngineOptions("fp16", hardware_compatibility=level))
    (node,) = (n for n in fake.built[2].model.graph.node if n.domain == "tdc")
    (numbers,) = (a.ints for a in node.attribute if a.name == "tactics")
    assert any(decode(n).split == "cluster" for n in numbers) == clusters


def test_a_plugin_that_other_gpus_cannot_run_is_refused_before_any_work(
    folder: Path, fake: FakeTensorRT
) -> None:
    fake.architectures = "90"
    with pytest.raises(TdcError, match=r"does not run on GPUs of compute capability 8\.0"):
        build(folder, engine=EngineOptions(hardware_compatibility="ampere_plus"))
    assert not fake.built
    assert not fake.loaded


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """A machine with no library, whose nvcc is replaced; sources and compute capabilities of kernels."""
    compiled: list[tuple[str, int]] = []

    def compile_ptx(source: str, compute_capability: int) -> Path:
        compiled.append((source, compute_capability))
        return Path("kernel.ptx")

    def no_library(*_: Any) -> Any:
        raise AssertionError("nobody needs a library")

    monkeypatch.setattr("tdc_deploy.backends.tensorrt.embedded.compile_ptx", compile_ptx)
    monkeypatch.setattr("tdc_deploy.backends.tensorrt.embedded.isa_version", lambda _: "8.7")
    monkeypatch.setattr("tdc_deploy.backends.tensorrt.embedded.why_not", lambda *_: None)
    monkeypatch.setattr(machine, "register_embedded", lambda _: None)
    monkeypatch.setattr(machine, "find_nvcc", lambda: "nvcc")
    monkeypatch.setattr(machine, "nvcc_version", lambda _: "release 12.8")
    monkeypatch.setattr(machine, "find_plugin", no_library)
    monkeypatch.setattr(machine, "register_plugin", no_library)
    return compiled


def test_an_engine_with_embedded_kernels_needs_no_library(
    folder: Path, fake: FakeTensorRT, embedded: list[tuple[str, int]]
) -> None:
    artifact = build(folder, engine=EngineOptions("fp16", plugin_mode="embedded"))
    found = read_sidecar(artifact.path)
    assert found is not None
    assert (found["engine"]["form"], found["engine"]["plugin_mode"]) == ("fused", "embedded")
    assert found["plugin"] is None
    assert found["engine"]["ptx"] == "8.7"
    assert embedded
    assert {capability for _, capability in embedded} == {80}
    info = read_engine_info(artifact.path, artifact.path.read_bytes())
    assert info is not None and not info.needs_plugin
    assert read_served(artifact.path).plugin is None
    (node,) = (n for n in fake.built[2].model.graph.node if n.domain == "tdc")
    assert {"aot", "layer"} <= {attribute.name for attribute in node.attribute}


def test_kernels_for_every_gpu_are_of_the_oldest_architecture(
    folder: Path,
    fake: FakeTensorRT,
    embedded: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "this_device", lambda: find_device("H200"))
    build(folder, engine=EngineOptions("fp16", plugin_mode="embedded"))
    assert {capability for _, capability in embedded} == {90}
    embedded.clear()
    compatible = EngineOptions("fp16", plugin_mode="embedded", hardware_compatibility="ampere_plus")
    fake.restart()
    build(folder, engine=compatible)
    assert {capability for _, capability in embedded} == {80}


def test_where_no_kernel_fits_the_fused_form_is_left_out(
    folder: Path,
    fake: FakeTensorRT,
    embedded: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tdc_deploy.backends.tensorrt.embedded.why_not", lambda *_: "too large")
    artifact = build(folder, engine=EngineOptions("fp16", plugin_mode="embedded"))
    assert [plugin_nodes(prepared) for prepared in fake.built] == [[], []]
    assert not embedded
    assert "not fused: no chain has a kernel that can travel in an engine" in artifact.warnings[0]
    assert "too large" in artifact.warnings[0]


def test_an_older_tensorrt_is_refused_before_anything_is_built(
    folder: Path, fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "tensorrt", lambda: SimpleNamespace(__version__="10.7.0"))
    with pytest.raises(TdcError, match=r"--plugin-mode embedded with TensorRT 10\.7"):
        build(folder, engine=EngineOptions(plugin_mode="embedded"))
    assert not fake.built


def test_a_build_that_fails_writes_nothing(folder: Path, fake: FakeTensorRT) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(TdcError, match="no engine keeps the error limit of 1e-09"):
        build(folder, max_error=1e-9, engine=EngineOptions("fp16"))
    assert sorted(folder.iterdir()) == before
    assert fake.built
