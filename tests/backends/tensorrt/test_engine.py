"""Building an engine with Polygraphy's loaders replaced: what they are given, and what is made of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import onnx
import polygraphy.backend.trt
import pytest
from polygraphy import util
from polygraphy.exception import PolygraphyException

from tdc_deploy.backends.tensorrt import engine as module
from tdc_deploy.backends.tensorrt.engine import Engine, build_engine, build_plan, dtype_name
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.prepare import Prepared
from tdc_deploy.backends.tensorrt.profiles import ShapeRange
from tdc_deploy.errors import TdcError
from tdc_deploy.progress import silent
from tests.backends.tensorrt.samples import network
from tests.builders import linear_model

RANGES = {"image": ShapeRange((1, 32), (4, 32), (8, 32))}


def half_out() -> onnx.ModelProto:
    model = linear_model()
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


PREPARED = Prepared(half_out(), ())

# TacticSource of TensorRT 10.
SOURCES = {
    "CUBLAS": 0,
    "CUBLAS_LT": 1,
    "CUDNN": 2,
    "EDGE_MASK_CONVOLUTIONS": 3,
    "JIT_CONVOLUTIONS": 4,
}


class FakeEngine:
    """image [-1, 32] in float32 → logits [-1, 10] in float16."""

    num_io_tensors = 2

    def __init__(self, text: str) -> None:
        self._text = text
        self._shapes: dict[str, tuple[int, ...]] = {}

    def create_execution_context(self) -> Any:
        return SimpleNamespace(set_input_shape=self._shapes.__setitem__)

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=self._information)

    def _information(self, _format: str) -> str:
        assert self._shapes == {"image": (4, 32)}, "the shape that it is optimised for"
        return self._text

    def get_tensor_name(self, i: int) -> str:
        return ("image", "logits")[i]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name == "image" else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> str:
        return "DataType.FLOAT" if name == "image" else "DataType.HALF"

    def get_tensor_shape(self, name: str) -> list[int]:
        return [-1, 32] if name == "image" else [-1, 10]


@dataclass
class FakeTensorRT:
    """Stands in for the loaders: remembers what they were given. A timing cache that does not begin with
    `device` is refused, as TensorRT refuses another GPU's.
    """

    version: str
    text: str
    config: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    known_timings: bytes = b""
    error: str = ""
    sources: dict[str, int] = field(default_factory=lambda: dict(SOURCES))
    device: bytes = b""
    cache: bytes | None = None

    def install(self, patch: pytest.MonkeyPatch) -> None:
        trt = SimpleNamespace(
            __version__=self.version,
            IProgressMonitor=object,
            ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
            MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
            HardwareCompatibilityLevel=SimpleNamespace(NONE="none", AMPERE_PLUS="ampere"),
            LayerInformationFormat=SimpleNamespace(JSON="json"),
            TensorIOMode=SimpleNamespace(INPUT="INPUT"),
            TacticSource=SimpleNamespace(**self.sources),
        )
        patch.setattr(module, "tensorrt", lambda: trt)
        patch.setattr(polygraphy.backend.trt, "CreateConfig", self._create_config)
        patch.setattr(polygraphy.backend.trt, "NetworkFromOnnxBytes", self._parse)
        patch.setattr(polygraphy.backend.trt, "EngineBytesFromNetwork", self._build)
        patch.setattr(
            polygraphy.backend.trt, "EngineFromBytes", lambda _: lambda: FakeEngine(self.text)
        )

    def _create_config(self, **settings: Any) -> Any:
        self.config = settings
        # What Polygraphy does with an open file.
        known = settings["load_timing_cache"]
        self.known_timings = b"" if known is None else util.load_file(known)

        def create(builder: str, network: str) -> Any:
            assert (builder, network) == ("builder", "network")
            self._set_cache(self.known_timings, ignore_mismatch=False)
            return SimpleNamespace(
                create_timing_cache=lambda content: content,
                set_timing_cache=self._set_cache,
                get_timing_cache=lambda: self.cache,
            )

        return create

    def _set_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        accepted = ignore_mismatch or not cache or cache.startswith(self.device)
        self.cache = cache if accepted else None
        return accepted

    def _parse(self, content: bytes, **settings: Any) -> str:
        self.network = {"model": onnx.load_model_from_string(content), **settings}
        return "network"

    def _build(self, network: str, config: Any, save_timing_cache: IO[bytes] | None) -> Any:
        assert network == "network"

        def build() -> bytes:
            config("builder", network)
            if self.error:
                raise PolygraphyException(self.error)
            if save_timing_cache is not None and self.cache is not None:
                with util.LockFile(save_timing_cache):
                    util.save_file(self.device + b"timings", save_timing_cache)
            return b"plan"

        return build


def built(
    patch: pytest.MonkeyPatch, version: str, options: EngineOptions, dtype: str = "float32"
) -> tuple[FakeTensorRT, Engine]:
    form = "11" if version.startswith("11") else "10" if version.startswith("10") else "8"
    fake = FakeTensorRT(version, network(dtype, form))
    fake.install(patch)
    return fake, build_engine(PREPARED, RANGES, options, lambda *_: None)


VERSIONS = ("8.5.3.1", "10.16.1.11", "11.1.0.106")


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_built_is_read_back(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    _, engine = built(monkeypatch, version, EngineOptions("fp16"), "float16")
    assert engine.plan == b"plan"
    assert engine.tensorrt == version
    assert engine.precision.name == "fp16"
    assert engine.inputs == {"image": ("float32", (-1, 32))}
    assert engine.outputs == {"logits": ("float16", (-1, 10))}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_flag_that_was_ignored_is_an_error(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    with pytest.raises(TdcError, match="the engine computes in fp32"):
        built(monkeypatch, version, EngineOptions("fp16"), "float32")


@pytest.mark.parametrize("version", VERSIONS)
def test_fp16_is_a_flag_up_to_8_and_a_type_from_10_on(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    fake, _ = built(monkeypatch, version, EngineOptions("fp16"), "float16")
    old = version.startswith("8")
    assert fake.config["fp16"] == old
    assert fake.network["strongly_typed"] == (not old)
    assert (fake.config["progress_monitor"] is None) == old


def test_inputs_and_outputs_are_read_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTensorRT("10.9.0", network("float32", "10")).install(monkeypatch)
    asked = Prepared(linear_model(), ())
    with pytest.raises(TdcError, match="'logits' of the engine is float16") as caught:
        build_engine(asked, RANGES, EngineOptions(), lambda *_: None)
    assert caught.value.expected == "float32"


def test_tf32_is_off_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not built(monkeypatch, "10.9.0", EngineOptions("fp32"))[0].config["tf32"]
    assert built(monkeypatch, "10.9.0", EngineOptions("tf32"))[0].config["tf32"]
    fake, _ = built(monkeypatch, "10.9.0", EngineOptions("fp16"), "float16")
    assert not fake.config["tf32"]


def test_options_reach_the_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    options = EngineOptions(
        workspace_mib=64,
        optimization_level=5,
        version_compatible=True,
        hardware_compatibility="ampere_plus",
        refit=True,
        library_tactics=False,
        sparsity="enable",
    )
    config = built(monkeypatch, "10.9.0", options)[0].config
    assert config["memory_pool_limits"] == {"workspace": 64 << 20}
    assert config["builder_optimization_level"] == 5
    assert config["version_compatible"] and config["refittable"] and config["sparse_weights"]
    assert config["hardware_compatibility_level"] == "ampere"
    assert config["tactic_sources"] == [3, 4], "what needs neither cuBLAS nor cuDNN"
    assert config["profiling_verbosity"] == "detailed"
    profile = config["profiles"][0]["image"]
    assert (profile.min, profile.opt, profile.max) == ((1, 32), (4, 32), (8, 32))


def test_what_is_left_to_tensorrt_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    config = built(monkeypatch, "8.5.3.1", EngineOptions())[0].config
    unset = {"memory_pool_limits", "hardware_compatibility_level", "tactic_sources"}
    assert not unset & set(config)
    assert config["builder_optimization_level"] is None
    assert config["sparse_weights"] is False


def test_polygraphy_takes_these_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    create = polygraphy.backend.trt.CreateConfig
    options = EngineOptions(workspace_mib=1, hardware_compatibility="ampere_plus")
    create(**built(monkeypatch, "10.9.0", options)[0].config)


def test_a_level_that_this_version_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    options = EngineOptions(hardware_compatibility="same_compute_capability")
    with pytest.raises(TdcError, match="same_compute_capability with TensorRT 8"):
        built(monkeypatch, "8.6.1", options)


def test_timings_are_kept_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = EngineOptions(timing_cache=tmp_path / "timing.cache")
    fake, _ = built(monkeypatch, "10.9.0", options)
    assert fake.known_timings == b""
    assert [path.name for path in tmp_path.iterdir()] == ["timing.cache"]
    fake, _ = built(monkeypatch, "10.9.0", options)
    assert fake.known_timings == b"timings"
    assert (tmp_path / "timing.cache").read_bytes() == b"timings"


def test_timings_that_tensorrt_refuses_are_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "timing.cache"
    path.write_bytes(b"another GPU's timings")
    fake = FakeTensorRT("10.9.0", network("float32", "10"), device=b"this GPU's ")
    fake.install(monkeypatch)
    options = EngineOptions(timing_cache=path)
    with pytest.warns(UserWarning, match="refuses the timing cache"):
        build_engine(PREPARED, RANGES, options, lambda *_: None)
    assert path.read_bytes() == b"this GPU's timings"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_engine(PREPARED, RANGES, options, lambda *_: None)
    assert fake.known_timings == b"this GPU's timings"


def test_no_source_is_asked_for_that_this_version_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTensorRT("8.5.3", network("float32", "8"), sources={"EDGE_MASK_CONVOLUTIONS": 3})
    fake.install(monkeypatch)
    build_engine(PREPARED, RANGES, EngineOptions(library_tactics=False), lambda *_: None)
    assert fake.config["tactic_sources"] == [3]


def test_tensorrts_refusal_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeTensorRT("10.9.0", "", error="Could not parse ONNX correctly")
    fake.install(monkeypatch)
    options = EngineOptions(timing_cache=tmp_path / "timing.cache")
    with pytest.raises(TdcError, match="Could not parse ONNX"):
        build_engine(PREPARED, RANGES, options, lambda *_: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("DataType.FLOAT", "float32"),
        ("DataType.HALF", "float16"),
        ("DataType.INT64", "int64"),
        ("DataType.BF16", "bfloat16"),
        ("DataType.BOOL", "bool"),
    ],
)
def test_types_have_numpys_names(dtype: str, name: str) -> None:
    assert dtype_name(dtype) == name


def test_a_parsed_network_may_be_edited(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTensorRT("10.16.1.11", "")
    fake.install(monkeypatch)
    parsed = ("builder", {"layout": "any"}, "parser")
    seen: list[Any] = []

    def build(network: Any, _config: str, save_timing_cache: object) -> Any:
        seen.append((network, save_timing_cache))
        return lambda: b"plan"

    monkeypatch.setattr(
        polygraphy.backend.trt, "NetworkFromOnnxBytes", lambda *_, **__: lambda: parsed
    )
    monkeypatch.setattr(polygraphy.backend.trt, "EngineBytesFromNetwork", build)
    trt = SimpleNamespace(
        __version__="10.16.1.11",
        IProgressMonitor=object,
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
    )
    edit = lambda network: network.update(layout="HWC8")  # noqa: E731
    made = build_plan(trt, PREPARED, RANGES, EngineOptions(), lambda *_: None, edit)
    assert made == b"plan"
    # The builder and the parser too: TensorRT's network does not keep them alive.
    assert seen == [(("builder", {"layout": "HWC8"}, "parser"), None)]


def test_an_engine_of_a_network_that_fp16_does_not_hold_is_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file says so: that is not what was asked for, and no error."""
    FakeTensorRT("10.9.0", network("float32", "10")).install(monkeypatch)
    prepared = replace(PREPARED, exact=("conv1",), precision="fp32")
    made = build_engine(prepared, RANGES, EngineOptions("fp16"), silent)
    assert made.precision.name == "fp32"
    with pytest.raises(TdcError, match="the engine computes in fp32"):
        build_engine(PREPARED, RANGES, EngineOptions("fp16"), silent)


@pytest.mark.parametrize(("version", "held"), [("8.6.1", True), ("10.9.0", False)])
def test_before_strong_typing_layers_are_held_to_their_precision(
    monkeypatch: pytest.MonkeyPatch, version: str, held: bool
) -> None:
    fake = FakeTensorRT(version, network("float16", "8" if held else "10"))
    fake.install(monkeypatch)
    asked: list[object] = []
    monkeypatch.setattr(module, "hold_to_float32", lambda _, *rest: asked.append(rest))

    def edited(parsed: object, edits: Any) -> object:
        for edit in edits:
            edit(parsed)
        return parsed

    monkeypatch.setattr(module, "_edited", edited)
    prepared = replace(PREPARED, exact=("conv1",), precision="fp16")
    build_engine(prepared, RANGES, EngineOptions("fp16"), silent)
    assert asked == ([("network", ("conv1",))] if held else [])
    assert fake.config.get("precision_constraints") == ("obey" if held else None)
