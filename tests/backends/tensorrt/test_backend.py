"""What layers and networks are built as to be timed, and under what they are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tdc_deploy.backends.tensorrt import backend as module
from tdc_deploy.backends.tensorrt import layer_engine
from tdc_deploy.backends.tensorrt.backend import TensorRtBackend
from tdc_deploy.backends.tensorrt.layer_engine import bind_layouts, build_layer
from tdc_deploy.backends.tensorrt.machine import Machine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.prepare import prepare
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import network_of
from tdc_deploy.profiling.analytical.chips import find_device
from tdc_deploy.profiling.layers import layer_model
from tdc_deploy.ranks.gpu_choices import GpuChoices
from tdc_deploy.types import DENSE, Candidate, Ranks
from tests.builders import save_model, small_cnn
from tests.fake_tensorrt import with_bodies
from tests.ranks.tables import conv_layer

A100 = find_device("A100")
MACHINE = Machine("10.9.0.34", 10, A100, Path("plugin.so"), "0" * 64)
FUSED = Candidate("tucker2", Ranks(16, 24), "fused")


def backend(machine: Machine = MACHINE, **options: Any) -> TensorRtBackend:
    return TensorRtBackend(machine, EngineOptions(**options), {"image": (1, 32, 24, 24)})


@pytest.mark.parametrize(
    "other",
    [
        backend(precision="fp16"),
        backend(optimization_level=5),
        backend(workspace_mib=64.0),
        backend(library_tactics=False),
        backend(version_compatible=True),
        backend(hardware_compatibility="ampere_plus"),
        backend(refit=True),
        backend(sparsity="enable"),
        backend(replace(MACHINE, tensorrt="10.16.1.11")),
        backend(replace(MACHINE, plugin_sha256="1" * 64)),
        backend(replace(MACHINE, driver="12.8")),
        backend(replace(MACHINE, device=find_device("H100"))),
        backend(replace(MACHINE, device=replace(A100, multiprocessors=42))),
    ],
)
def test_whatever_changes_a_latency_is_in_the_key(other: TensorRtBackend) -> None:
    assert other.describe() != backend().describe()


def test_the_ends_of_a_network_are_in_the_key() -> None:
    fp32, fp16 = (backend(precision="fp16", io_precision=ends) for ends in ("fp32", "fp16"))
    assert fp32.describe() != fp16.describe()


@pytest.mark.parametrize(
    "same",
    [
        backend(timing_cache=Path("other.cache")),
        backend(min_shapes={"image": (1, 1)}),
        backend(replace(MACHINE, plugin=Path("moved.so"))),
    ],
)
def test_what_changes_none_is_not(same: TensorRtBackend) -> None:
    assert same.describe() == backend().describe()


@pytest.mark.parametrize(
    "changed",
    [
        {"plugin_sha256": "1" * 64},
        {"driver": "12.8"},
        {"tensorrt": "10.16.1.11"},
        {"device": find_device("H100")},
    ],
)
def test_timings_of_other_kernels_are_in_other_files(changed: dict[str, Any]) -> None:
    other = replace(MACHINE, **changed)
    assert other.timing_cache() != MACHINE.timing_cache() == replace(MACHINE).timing_cache()
    assert MACHINE.timing_cache().parent.is_dir()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TDC_DEPLOY_CACHE", str(tmp_path / "file"))
    with pytest.raises(TdcError, match="cannot be written"):
        MACHINE.timing_cache()


def test_a_file_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []

    def build_engine(prepared: Any, ranges: Any, *_: Any) -> Any:
        built.append(ranges["image"].max)
        return SimpleNamespace(plan=prepared, inputs={}, outputs={})

    monkeypatch.setattr(module, "build_engine", build_engine)
    path = save_model(small_cnn(batch="n"), tmp_path / "model.onnx")
    on = backend()
    for model in (path, path, small_cnn(batch="n")):
        on.runner(model)
    assert built == [(1, 32, 24, 24)] * 2, "at the planned shape, whatever the file leaves open"


class FakeNetwork:
    """One input and one output of so many channels."""

    num_inputs = num_outputs = 1

    def __init__(self, c: int, m: int, dtype: str = "DataType.HALF") -> None:
        self.input = SimpleNamespace(shape=(1, c, 8, 8), allowed_formats=None, dtype=dtype)
        self.output = SimpleNamespace(shape=(1, m, 8, 8), allowed_formats=None, dtype=dtype)

    def get_input(self, _: int) -> Any:
        return self.input

    def get_output(self, _: int) -> Any:
        return self.output


TRT = SimpleNamespace(TensorFormat=SimpleNamespace(LINEAR=0, HWC8=2, HWC=8, CHW4=3, CHW32=4))


@pytest.mark.parametrize(("precision", "bit"), [("fp16", 1 << 2), ("tf32", 1 << 8), ("fp32", 1)])
def test_layers_are_bound_to_the_layout_between_layers(precision: Any, bit: int) -> None:
    network = FakeNetwork(64, 128)
    bind_layouts(TRT, network, precision)
    assert (network.input.allowed_formats, network.output.allowed_formats) == (bit, bit)


@pytest.mark.parametrize("precision", ["fp16", "tf32", "fp32"])
def test_channels_that_fill_no_vectors_stay_planes(precision: Any) -> None:
    """A buffer of the size that the shape says would be too small for them."""
    network = FakeNetwork(3, 64)
    bind_layouts(TRT, network, precision)
    assert network.input.allowed_formats == 1


@pytest.mark.parametrize(("channels", "bit"), [(64, 1 << 4), (48, 1 << 3), (3, 1)])
def test_8_bits_have_layouts_of_their_own(channels: int, bit: int) -> None:
    network = FakeNetwork(channels, 64, "DataType.INT8")
    bind_layouts(TRT, network, "fp16")
    assert (network.input.allowed_formats, network.output.allowed_formats) == (bit, 1 << 4)


def test_the_layout_is_bound_before_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    network = FakeNetwork(64, 64)

    def build_plan(*arguments: Any) -> bytes:
        arguments[-1](network)
        return b"plan"

    monkeypatch.setattr(layer_engine, "tensorrt", lambda: TRT)
    monkeypatch.setattr(layer_engine, "build_plan", build_plan)
    monkeypatch.setattr(layer_engine, "load_engine", lambda plan: plan)
    monkeypatch.setattr(layer_engine, "tensors_of", lambda *_: ({"x": ("float16", ())}, {}))
    made = build_layer(None, {}, EngineOptions("fp16"))  # type: ignore[arg-type]
    assert (made.plan, made.inputs) == (b"plan", {"x": ("float16", ())})
    assert network.input.allowed_formats == network.output.allowed_formats == 1 << 2


@pytest.mark.parametrize("candidate", [DENSE, replace(FUSED, implementation="native"), FUSED])
def test_a_layer_in_fp16_takes_and_gives_fp16(candidate: Candidate) -> None:
    layer = conv_layer()
    model = GpuChoices(A100, "fp16").model(layer, candidate)
    shapes = {"x": (1, 64, 14, 14)}
    made = prepare(network_of(model), shapes, A100, "fp16", 10, io_precision="fp16")
    kinds = [node.op_type for node in made.model.graph.node]
    expected = {"dense": 1, "native": 3}.get(
        "dense" if candidate.form == "dense" else candidate.implementation
    )
    assert kinds == (["TuckerConv"] if expected is None else ["Conv"] * expected)
    assert made.fused == (("Conv_y",) if expected is None else ())
    for value in (*made.model.graph.input, *made.model.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    x = np.random.default_rng(0).standard_normal(shapes["x"], np.float32)
    (y,) = run(with_bodies(made.model), x.astype(np.float16))
    (wanted,) = run(layer_model(layer, candidate), x)
    # Sums of up to 576 products of order 1, rounded at every step to 11 bits.
    assert np.abs(y - wanted).max() <= 0.02 * np.abs(wanted).max()


def run(model: onnx.ModelProto, x: Any) -> Any:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x})
