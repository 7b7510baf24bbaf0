"""The embedded plugin as TensorRT sees it: through a stand-in, and through NVIDIA's own Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tdc_deploy
from tdc_deploy.backends.tensorrt import embedded_plugin
from tdc_deploy.backends.tensorrt.embedded_kernels import ENTRY
from tdc_deploy.backends.tensorrt.embedded_layer import EmbeddedLayer, LaunchedKernel
from tdc_deploy.backends.tensorrt.embedded_plugin import (
    ATTRIBUTE,
    INPUTS_OF,
    keep_layer,
    register_embedded,
)
from tdc_deploy.errors import TdcError
from tests.backends.tensorrt.fake_plugin import FakePlugin
from tests.backends.tensorrt.test_api import STUBS, make_stubs
from tests.nvidia_packages import fetched

ROOT = Path(tdc_deploy.__file__).parents[1]
DRIVER = Path(__file__).with_name("drive_aot.py")


def layer(ptx: Path, type_: Any = "FP16", pads: Any = (1, 2, 0, 1)) -> EmbeddedLayer:
    kernels = {
        17: LaunchedKernel(str(ptx), (4, 8), 128, 30000),
        273: LaunchedKernel(str(ptx), (8, 8), 256, 40000),
    }
    return EmbeddedLayer(type_, (3, 5), (2, 1), pads, (1, 2), kernels)


def question(name: str, found: EmbeddedLayer) -> dict[str, Any]:
    """n 5, C 20, 9 x 11 pixels, ranks 16 and 24, M 40; h_out (9 + 1 - 3) // 2 + 1, w_out 11 + 3 - 8."""
    pixels = "HWC8" if found.type == "FP16" else "HWC"
    shapes = [[5, 20, 9, 11], [16, 20], [16], [3, 5, 24, 16], [24], [40, 24], [40]]
    layouts = [pixels, *["LINEAR"] * 6]
    if name == "TuckerConvAdd":
        shapes.append([5, 40, 4, 6])
        layouts.append(pixels)
    return {
        "name": name,
        "version": "1",
        "namespace": "tdc",
        "layer": {
            **{
                key: getattr(found, key)
                for key in ("type", "kernel", "strides", "pads", "dilations")
            },
            "kernels": {
                number: (kernel.ptx, kernel.tile, kernel.threads, kernel.shared_bytes)
                for number, kernel in found.kernels.items()
            },
        },
        "shapes": shapes,
        "type": found.type,
        "layouts": [*layouts, pixels],
    }


def test_a_kept_layer_has_a_number_of_its_own(tmp_path: Path) -> None:
    numbers = [keep_layer(layer(tmp_path / f"{i % 3}.ptx")) for i in range(6)]
    assert numbers[:3] == numbers[3:]
    assert len(set(numbers)) == 3
    assert all(0 <= number < 2**31 for number in numbers)


def test_layers_whose_digests_meet_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_plugin, "crc32", lambda _: 2**32 - 1)
    numbers = {keep_layer(layer(tmp_path / f"meet{i}.ptx")) for i in range(3)}
    assert numbers == {2**31 - 1, 0, 1}


@pytest.mark.parametrize("pads", [(1, 2, 0, 1), (0, 0, 0, 0)])
def test_output_sizes_are_those_of_the_convolution(
    pads: tuple[int, int, int, int], tmp_path: Path
) -> None:
    found = layer(tmp_path / "kernel.ptx", pads=pads)
    for size in range(9, 20):
        padded = size + pads[0] + pads[2], size + pads[1] + pads[3]
        # Every place where the window, 3 and 9 pixels wide, starts.
        assert found.out_size(0, size) == len(range(0, padded[0] - 3 + 1, 2))
        assert found.out_size(1, size) == len(range(0, padded[1] - 9 + 1, 1))


def test_an_older_tensorrt_is_refused() -> None:
    with pytest.raises(TdcError, match=r"--plugin-mode embedded with TensorRT 10\.7"):
        register_embedded(SimpleNamespace(__name__="tensorrt", __version__="10.7.0"))


def test_packages_that_have_it_only_in_the_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = SimpleNamespace(
        __name__="no_such", __version__="10.9.0.34", QuickPluginCreationRequest=None
    )
    with pytest.raises(TdcError, match=r"TensorRT 10\.9\.0\.34 without its Python plugins"):
        register_embedded(trt)
    plugin = FakePlugin("tensorrt_bindings.plugin")
    monkeypatch.setitem(sys.modules, "tensorrt_bindings.plugin", plugin)
    register_embedded(trt)
    assert set(plugin.definitions) == {"tdc::TuckerConv", "tdc::TuckerConvAdd"}


def test_it_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = FakePlugin("fake.plugin")
    monkeypatch.setitem(sys.modules, "fake.plugin", plugin)
    trt: Any = SimpleNamespace(__name__="fake", QuickPluginCreationRequest=None)
    register_embedded(trt)
    register_embedded(trt)
    assert set(plugin.definitions) == {"tdc::TuckerConv", "tdc::TuckerConvAdd"}
    for name, inputs in INPUTS_OF.items():
        definition = plugin.definitions[f"tdc::{name}"]
        assert definition.names("register") == [*inputs, ATTRIBUTE]
        assert definition.names("autotune") == [*inputs, ATTRIBUTE, "outputs"]
        assert definition.names("aot_impl") == [*inputs, ATTRIBUTE, "outputs", "tactic"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("tensorrt-cu12-bindings", "10.9.0.34"),
        ("tensorrt-cu13-bindings", "10.16.1.11"),
        ("tensorrt-cu13-bindings", "11.1.0.106"),
    ],
)
def test_nvidias_own_python_takes_it(package: str, version: str, tmp_path: Path) -> None:
    """From the parser's fields to the kernel, its launch and its arguments, with real signatures."""
    site = fetched(package, version, sys.executable, tmp_path)
    make_stubs({key.format(major=version[:2]): v for key, v in STUBS.items()}, tmp_path / "stubs")
    ptx = tmp_path / "kernel.ptx"
    ptx.write_text("the ptx")
    asked = [question(name, layer(ptx, type_)) for name in INPUTS_OF for type_ in ("FP16", "FP32")]
    done = subprocess.run(
        [sys.executable, str(DRIVER), "tensorrt_bindings", str(site)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(tmp_path / "stubs"),
            "PYTHONPATH": str(ROOT),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for each, found in zip(asked, json.loads(done.stdout.splitlines()[-1]), strict=True):
        half = each["type"] == "FP16"
        assert found["y_shape"] == [5, 40, 4, 6]
        assert found["y_type"] == ["DataType.HALF" if half else "DataType.FLOAT"]
        type_ = "HALF" if half else "FLOAT"
        assert found["combinations"] == [[type_, layout] for layout in each["layouts"]]
        for tactic, blocks, threads, shared in (("17", 5, 128, 30000), ("273", 5, 256, 40000)):
            kernel = found["kernels"][tactic]
            assert (kernel["entry"], kernel["ptx"]) == (ENTRY, "the ptx")
            assert kernel["launch"] == {
                **{f"grid_{axis}": 1 for axis in "yz"},
                **{f"block_{axis}": 1 for axis in "yz"},
                "grid_x": blocks,
                "block_x": threads,
                "shared_mem": shared,
            }
            # h, w, c, h_out, w_out, m, r_in, r_out
            assert kernel["integers"] == [9, 11, 20, 4, 6, 40, 16, 24]
            assert kernel["types"] == ["PluginArgDataType.INT32"]
