"""Options, shape ranges and what a machine lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tdc_deploy.backends.tensorrt import requirements
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.profiles import ShapeRange, shape_ranges
from tdc_deploy.cli import engine_options
from tdc_deploy.errors import TdcError
from tests.builders import small_cnn
from tests.helpers import network

NOTHING: dict[str, Any] = {
    "precision": None,
    "io_precision": None,
    "min_shapes": None,
    "opt_shapes": None,
    "max_shapes": None,
    "workspace": None,
    "level": None,
    "timing_cache": None,
    "version_compatible": False,
    "hardware_compatibility": None,
    "refit": False,
    "library_tactics": True,
    "plugin_mode": None,
    "sparsity": None,
}


@pytest.mark.parametrize(
    ("value", "mib"),
    [("4096", 4096), ("workspace:512", 512), ("workspace:2G", 2048), ("512MiB", 512)],
)
def test_workspace_is_read_as_trtexec_writes_it(value: str, mib: float) -> None:
    assert engine_options.parse_workspace(value) == mib


@pytest.mark.parametrize("value", ["", "big", "-1", "dlaSRAM:1", "1,2"])
def test_another_workspace_is_refused(value: str) -> None:
    with pytest.raises(TdcError, match="--workspace"):
        engine_options.parse_workspace(value)


def test_options_that_were_not_given_are_none() -> None:
    assert engine_options.parse(**NOTHING) is None
    assert engine_options.parse(**{**NOTHING, "precision": "fp32"}) == EngineOptions()


def test_options_that_were_given() -> None:
    given = engine_options.parse(
        **{
            **NOTHING,
            "precision": "fp16",
            "io_precision": "fp16",
            "opt_shapes": ["a:2x3,b:4"],
            "hardware_compatibility": "ampere+",
            "workspace": "64",
            "sparsity": "enable",
        }
    )
    assert given == EngineOptions(
        precision="fp16",
        io_precision="fp16",
        opt_shapes={"a": (2, 3), "b": (4,)},
        hardware_compatibility="ampere_plus",
        workspace_mib=64,
        sparsity="enable",
    )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("precision", "int8", "--precision is 'int8'"),
        ("io_precision", "int8", "--io-precision is 'int8'"),
        ("io_precision", "fp16", "--io-precision fp16 with --precision fp32"),
        ("workspace_mib", 0, "--workspace is 0"),
        ("workspace_mib", float("nan"), "--workspace is nan"),
        ("optimization_level", 6, "level is 6"),
        ("hardware_compatibility", "hopper", "'hopper'"),
        ("sparsity", "force", "--sparsity is 'force'"),
        ("plugin_mode", "inside", "--plugin-mode is 'inside'"),
    ],
)
def test_impossible_values(field: str, value: Any, message: str) -> None:
    with pytest.raises(TdcError, match=message):
        EngineOptions(**{field: value})


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (EngineOptions(optimization_level=0), "--builder-optimization-level"),
        (EngineOptions(version_compatible=True), "--version-compatible"),
        (EngineOptions(hardware_compatibility="ampere_plus"), "--hardware-compatibility-level"),
    ],
)
def test_what_an_old_tensorrt_lacks(options: EngineOptions, flag: str) -> None:
    with pytest.raises(TdcError, match=f"{flag} with TensorRT 8.5"):
        options.check_version((8, 5))
    options.check_version((8, 6))
    options.check_version((11, 0))


def test_embedded_kernels_want_a_newer_one() -> None:
    options = EngineOptions(plugin_mode="embedded")
    with pytest.raises(TdcError, match=r"--plugin-mode embedded with TensorRT 10\.8") as caught:
        options.check_version((10, 8))
    assert caught.value.expected == "TensorRT 10.9 or newer"
    options.check_version((10, 9))


def test_naming_the_default_plugin_mode_asks_for_an_engine() -> None:
    assert engine_options.parse(**{**NOTHING, "plugin_mode": "library"}) == EngineOptions()
    given = engine_options.parse(**{**NOTHING, "plugin_mode": "embedded"})
    assert given == EngineOptions(plugin_mode="embedded")


GRAPH = network(small_cnn(batch="n")).graph
SHAPE = (32, 24, 24)


def test_an_input_without_a_range_takes_one_shape() -> None:
    expected = ShapeRange((1, *SHAPE), (1, *SHAPE), (1, *SHAPE))
    assert shape_ranges(GRAPH, EngineOptions()) == {"image": expected}
    two = {"image": (2, *SHAPE)}
    expected = ShapeRange((2, *SHAPE), (2, *SHAPE), (2, *SHAPE))
    assert shape_ranges(GRAPH, EngineOptions(opt_shapes=two)) == {"image": expected}
    assert shape_ranges(GRAPH, EngineOptions(), two) == {"image": expected}


def test_a_range() -> None:
    one, four, nine = ({"image": (n, *SHAPE)} for n in (1, 4, 9))
    options = EngineOptions(min_shapes=one, opt_shapes=four, max_shapes=nine)
    expected = ShapeRange((1, *SHAPE), (4, *SHAPE), (9, *SHAPE))
    assert shape_ranges(GRAPH, options) == {"image": expected}
    only_max = EngineOptions(opt_shapes=four, max_shapes=nine)
    assert shape_ranges(GRAPH, only_max)["image"].min == (4, *SHAPE)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"min_shapes": {"image": (1, *SHAPE)}}, "but no --opt-shapes"),
        ({"opt_shapes": {"picture": (1, *SHAPE)}}, "no input of the model"),
        ({"opt_shapes": {"image": (1, 32, 24, 23)}}, "shape 1x32x24x23"),
        (
            {"opt_shapes": {"image": (1, *SHAPE)}, "min_shapes": {"image": (2, *SHAPE)}},
            r"2x32x24x24 \(min\), 1x32x24x24 \(opt\)",
        ),
        (
            {"opt_shapes": {"image": (3, *SHAPE)}, "max_shapes": {"image": (2, *SHAPE)}},
            r"2x32x24x24 \(max\)",
        ),
    ],
)
def test_impossible_ranges(shapes: Any, message: str) -> None:
    with pytest.raises(TdcError, match=message):
        shape_ranges(GRAPH, EngineOptions(**shapes))


def machine(monkeypatch: pytest.MonkeyPatch, tensorrt: bool, gpus: list[int], plugin: bool) -> None:
    def find() -> Path:
        if plugin:
            return Path("plugin.so")
        raise TdcError("no plugin library")

    def cuda_driver() -> None:
        if not tensorrt:
            raise TdcError("cuda-python cannot be imported")

    # Another package in the namespace `cuda` is always there.
    installed = {"cuda", "tensorrt"} if tensorrt else {"cuda"}
    monkeypatch.setattr(
        requirements, "find_spec", lambda name: object() if name in installed else None
    )
    monkeypatch.setattr(requirements, "cuda_driver", cuda_driver, raising=False)
    monkeypatch.setattr(requirements, "installed_tensorrt_major", lambda: 10 if tensorrt else None)
    monkeypatch.setattr(requirements, "compute_capabilities", lambda: gpus)
    monkeypatch.setattr(requirements, "find_plugin", find)


@pytest.mark.parametrize("tensorrt", [False, True])
@pytest.mark.parametrize("gpus", [[], [90]])
@pytest.mark.parametrize("plugin", [False, True])
def test_each_missing_thing_is_named_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tensorrt: bool, gpus: list[int], plugin: bool
) -> None:
    machine(monkeypatch, tensorrt, gpus, plugin)
    text = "; ".join(requirements.what_is_missing())
    assert ("package tensorrt" in text) == (not tensorrt)
    assert ("package cuda-python" in text) == (not tensorrt)
    assert ("NVIDIA GPU" in text) == (not gpus)
    assert ("plugin library" in text) == (not plugin)
    if text:
        with pytest.raises(TdcError, match="cannot be built on this machine"):
            requirements.check_engine_builds(Path("a.onnx"), Path("b.engine"))
    else:
        requirements.check_engine_builds(Path("a.onnx"), Path("b.engine"))


def test_embedded_kernels_want_nvcc_and_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, True, [90], plugin=False)
    monkeypatch.setattr(requirements, "find_nvcc", lambda: "nvcc")
    releases(monkeypatch, (12, 8), (12, 8))
    engine: Any = (Path("a.onnx"), Path("b.engine"), [], "embedded")
    requirements.check_engine_builds(*engine)

    def missing() -> str:
        raise TdcError("no CUDA compiler")

    monkeypatch.setattr(requirements, "find_nvcc", missing)
    with pytest.raises(TdcError, match="missing: nvcc, which compiles") as caught:
        requirements.check_engine_builds(*engine)
    assert str(caught.value.expected).startswith("TensorRT 10.9 to 11")


def releases(
    patch: pytest.MonkeyPatch, nvcc: tuple[int, int] | None, driver: tuple[int, int] | None
) -> None:
    """Of nvcc's toolkit, and of the newest CUDA that the driver knows."""
    patch.setattr(requirements, "nvcc_release", lambda _: nvcc, raising=False)
    patch.setattr(requirements, "driver_cuda", lambda: driver, raising=False)


@pytest.mark.parametrize(
    ("nvcc", "driver", "refused"),
    [
        ((12, 8), (12, 8), False),
        ((12, 8), (13, 0), False),
        ((13, 0), (12, 8), True),
        ((12, 10), (12, 9), True),
        (None, (12, 8), False),
        ((13, 0), None, False),
    ],
)
def test_a_driver_that_cannot_load_what_nvcc_writes(
    monkeypatch: pytest.MonkeyPatch,
    nvcc: tuple[int, int] | None,
    driver: tuple[int, int] | None,
    refused: bool,
) -> None:
    machine(monkeypatch, True, [90], plugin=True)
    monkeypatch.setattr(requirements, "find_nvcc", lambda: "/opt/nvcc")
    releases(monkeypatch, nvcc, driver)
    requirements.check_engine_plans(Path("a.onnx"))
    if not refused:
        requirements.check_engine_plans(Path("a.onnx"), "embedded")
        return
    with pytest.raises(TdcError, match=r"/opt/nvcc is of CUDA 1.*, the driver knows CUDA up to 12"):
        requirements.check_engine_plans(Path("a.onnx"), "embedded")


@pytest.mark.parametrize(
    ("model", "output", "command"),
    [
        ("a.onnx", "b.engine", "tdc-deploy build a.onnx -o b.onnx --inputs 's s.npz'"),
        ("a.onnx", "a.plan", "tdc-deploy build a.onnx -o a-fast.onnx --inputs 's s.npz'"),
    ],
)
def test_the_other_build_is_offered_word_for_word(
    monkeypatch: pytest.MonkeyPatch, model: str, output: str, command: str
) -> None:
    machine(monkeypatch, False, [], False)
    with pytest.raises(TdcError) as caught:
        requirements.check_engine_builds(Path(model), Path(output), ["--inputs", "s s.npz"])
    assert caught.value.fix.endswith(command)
