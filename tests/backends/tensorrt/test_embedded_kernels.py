"""Which kernels travel in an engine, against the C++ sources, nvcc and the emulator."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu.layers import cases
from tdc_deploy.backends.tensorrt.compatibility import least_device
from tdc_deploy.backends.tensorrt.embedded_kernels import (
    ENTRY,
    SHARED_BYTES,
    Slopes,
    embedded_kernels,
    embedded_tactics,
    fitting_tactics,
    why_not,
)
from tdc_deploy.backends.tensorrt.embedded_layer import (
    EmbeddedLayer,
    LaunchedKernel,
    Type,
    blocks,
)
from tdc_deploy.backends.tensorrt.embedded_plugin import (
    ATTRIBUTE,
    keep_layer,
    register_embedded,
)
from tdc_deploy.plugin.ptx import compile_ptx
from tdc_deploy.plugin.sources import source_root
from tdc_deploy.profiling.analytical.chips import find_device
from tdc_deploy.profiling.analytical.model import PRECISIONS, PrecisionName, shared_bytes
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.analytical.tactics import FusedConfig
from tests.backends.tensorrt.embedded_cases import Operands, draw, reference
from tests.backends.tensorrt.emulated import COMPILER, EmulatedKernel, build_emulator
from tests.backends.tensorrt.fake_plugin import FakePlugin, TensorDesc
from tests.profiling.analytical.test_plugin import drawn_shapes

A100 = find_device("A100")
RESNET18 = {case.names[0]: case for case in cases("resnet18")}

# T1, T2 and Y are each rounded to fp16 (2⁻¹¹), and cancellation may double what that does to Y; in fp32
# (2⁻²⁴) it is sums of some hundred terms. TF32 keeps as many bits as fp16.
TOLERANCES: dict[PrecisionName, float] = {"fp16": 6 * 2.0**-11, "tf32": 6 * 2.0**-11, "fp32": 1e-5}

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


def shape_of(name: str, batch: int = 1) -> TuckerShape:
    case = RESNET18[name].at_batch(batch)
    return TuckerShape.of_layer(case.layer, case.ranks)


def layer_of(shape: TuckerShape, type_: Type, kernels: dict[int, LaunchedKernel]) -> EmbeddedLayer:
    window = (shape.kernel, shape.strides, shape.pads, shape.dilations)
    return EmbeddedLayer(type_, *window, kernels)


def test_every_configuration_of_the_file_is_one() -> None:
    tactics = embedded_tactics()
    assert {tactic.family for tactic in tactics} == {"fused"}
    assert {tactic.arithmetic for tactic in tactics} == {"f16", "tf32", "f32"}
    assert len({tactic.number for tactic in tactics}) == len(tactics)
    assert all(tactic.number > 0 and tactic.parts == 1 for tactic in tactics)


@pytest.mark.parametrize("precision", ["fp16", "tf32", "fp32"])
def test_no_kernel_takes_more_than_a_kernel_gets(precision: PrecisionName) -> None:
    fits = 0
    for shape in drawn_shapes(60):
        kernels = embedded_kernels(shape, (1, 1, 0), A100, precision)
        assert all(kernel.shared_bytes <= SHARED_BYTES for kernel in kernels)
        assert bool(kernels) == bool(fitting_tactics(shape, A100, precision))
        fits += bool(kernels)
    assert 0 < fits < 60


def test_every_gpu_from_ampere_on_has_a_kibibyte_less() -> None:
    """TensorRT's rule for engines of that level; some kernel is between the two limits."""
    least = least_device(A100, "ampere_plus")
    limit = least.architecture.shared_bytes_per_block
    fitting = {False: 0, True: 0}
    for shape in drawn_shapes(60):
        every = fitting_tactics(shape, A100, "fp16")
        few = fitting_tactics(shape, A100, "fp16", least)
        assert few == [tactic for tactic in every if shared_bytes(tactic, shape) <= limit]
        fitting[few == every] += 1
    assert all(fitting.values())


def test_what_fits_of_resnet_18_with_the_papers_ranks() -> None:
    """In fp16 all shapes but that of stride 2 with the largest ranks; in fp32 the small ranks."""
    large = {"layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1", "layer4.0.conv2"}
    expected: dict[PrecisionName, set[str]] = {"fp16": {"layer4.0.conv1"}, "fp32": large}
    for precision, missing in expected.items():
        without = {
            name for name in RESNET18 if not fitting_tactics(shape_of(name), A100, precision)
        }
        assert without == missing
    assert "fits in 48 KB" in str(why_not(shape_of("layer4.0.conv1"), A100, "fp16"))


def test_a_kernel_that_seems_slower_than_three_launches_is_not_used() -> None:
    said = str(why_not(shape_of("layer4.0.conv2"), A100, "fp16"))
    found = re.search(r"take (\d+\.\d) us, three launches (\d+\.\d) us", said)
    assert found and float(found[1]) > float(found[2])
    assert why_not(shape_of("layer1.0.conv2"), A100, "fp16") is None


COUNTS = """
#include <iostream>
#include "kernels/fused_launch.h"
int main() {
    tdc::TuckerConvParams p{};
    tdc::fused::Sizes s{};
    while (std::cin >> s.tile_h >> s.tile_w >> s.rows >> s.columns >> s.stages >> s.vector >> p.n >>
           p.h_out >> p.w_out >> p.r_in >> p.r_out >> p.kernel_h >> p.kernel_w >> p.stride_h >>
           p.stride_w >> p.dilation_h >> p.dilation_w)
        std::cout << tdc::fused::tile_count(p, s) << " "
                  << tdc::fused::shared_bytes(p, s, tdc::Split::kNone, 1) << "\\n";
}
"""


@needs_compiler
def test_blocks_and_shared_memory_are_the_launchers(tmp_path: Path) -> None:
    assert COMPILER is not None
    plugins = source_root() / "plugins"
    (tmp_path / "counts.cpp").write_text(COUNTS)
    include = ["-I", str(plugins / "include"), "-I", str(plugins)]
    command = [COMPILER, "-std=c++17", "-DTDC_EMULATED", *include, str(tmp_path / "counts.cpp")]
    subprocess.run([*command, "-o", str(tmp_path / "counts")], check=True)
    lines, mine = [], []
    for shape in drawn_shapes(40):
        for tactic in embedded_tactics():
            c = tactic.config
            assert isinstance(c, FusedConfig)
            tile = (c.tile_h, c.tile_w)
            kernel = LaunchedKernel("", tile, c.threads, shared_bytes(tactic, shape))
            sizes = (*tile, c.rows, c.columns, c.stages, 8 if tactic.arithmetic == "f16" else 4)
            window = (*shape.kernel, *shape.strides, *shape.dilations)
            numbers = (*sizes, shape.n, *shape.out_hw, shape.r_in, shape.r_out, *window)
            lines.append(" ".join(map(str, numbers)))
            mine.append(f"{blocks(kernel, shape.n, *shape.out_hw)} {kernel.shared_bytes}")
    text = "\n".join(lines)
    done = subprocess.run([tmp_path / "counts"], input=text, capture_output=True, text=True)
    assert done.stdout.splitlines() == mine


@needs_nvcc
@pytest.mark.parametrize("capability", [80, 86, 89, 90])
def test_ptx_has_the_entry_with_its_parameters(
    capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TDC_DEPLOY_CACHE", str(tmp_path))
    for residual in (False, True):
        shape = replace(shape_of("layer1.0.conv1"), residual=residual)
        kernel = embedded_kernels(shape, (0.25, 1, 0), A100, "fp16")[0]
        path = compile_ptx(kernel.source, capability)
        text = path.read_text()
        assert f".target sm_{capability}" in text
        entry = re.search(rf"\.visible \.entry {ENTRY}\((.*?)\)", text, re.DOTALL)
        assert entry is not None
        types = re.findall(r"\.param \.(\w+)", entry[1])
        assert types == ["u64"] * (7 + residual) + ["u32"] * 8 + ["u64"]
        assert f".maxntid {kernel.threads}" in text
        before = path.stat().st_mtime_ns
        assert compile_ptx(kernel.source, capability) == path
        assert path.stat().st_mtime_ns == before


@needs_nvcc
@pytest.mark.slow
def test_no_configuration_spills_registers(tmp_path: Path) -> None:
    plugins = source_root() / "plugins"
    shape = replace(shape_of("layer1.0.conv2"), residual=True)
    for precision in PRECISIONS:
        for kernel in embedded_kernels(shape, (1, 1, 0), A100, precision):
            (tmp_path / "kernel.cu").write_text(kernel.source)
            command = ["nvcc", "-arch=sm_90", "-std=c++17", "-Werror", "all-warnings", "-cubin"]
            command += ["-Xptxas", "-v,--warn-on-spills", "-I", str(plugins)]
            command += ["-I", str(plugins / "include"), str(tmp_path / "kernel.cu")]
            done = subprocess.run(
                [*command, "-o", str(tmp_path / "kernel.cubin")], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            assert "0 bytes stack frame, 0 bytes spill stores" in done.stderr


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return build_emulator(tmp_path_factory.mktemp("emulator"))


RUNS: dict[str, tuple[PrecisionName, TuckerShape, Slopes]] = {
    "3x3": ("fp16", TuckerShape(2, 9, 11, 20, 24, 16, 24), (0.25, 0.5, 0.0)),
    "stride, pads, residual": (
        "fp16",
        TuckerShape(1, 13, 10, 19, 21, 24, 8, (3, 5), (2, 1), (0, 2, 1, 1), (1, 2), True),
        (1.0, 0.0, 0.1),
    ),
    "fp32, residual": (
        "fp32",
        TuckerShape(2, 10, 7, 12, 9, 16, 16, (5, 3), (1, 2), (2, 1, 2, 1), (1, 1), True),
        (0.0, 0.25, 1.0),
    ),
    "tf32": ("tf32", TuckerShape(1, 8, 8, 16, 16, 8, 8), (1.0, 1.0, 0.0)),
}


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> FakePlugin:
    """A tensorrt.plugin with which the embedded ones are registered."""
    found = FakePlugin("fake.plugin")
    monkeypatch.setitem(sys.modules, "fake.plugin", found)
    register_embedded(SimpleNamespace(__name__="fake", QuickPluginCreationRequest=None))
    return found


def told(plugin: FakePlugin, shape: TuckerShape, operands: Operands, layer: EmbeddedLayer) -> Any:
    """Entry, PTX, launch and integers of the layer's only kernel, as TensorRT gets them."""
    definition = plugin.definitions["tdc::TuckerConvAdd" if shape.residual else "tdc::TuckerConv"]
    y_shape = (shape.n, shape.m, *shape.out_hw)
    shapes = [(shape.n, shape.c, shape.h, shape.w), *(w.shape for w in operands.weights)]
    tensors = [TensorDesc(found) for found in (*shapes, *[y_shape] * shape.residual)]
    number = np.array([keep_layer(layer)], np.int32)
    output = definition.functions["register"](*tensors, **{ATTRIBUTE: number})
    assert output.shape_expr == y_shape
    (tactic,) = layer.kernels
    return definition.functions["aot_impl"](*tensors, number, (output,), tactic)


@needs_compiler
@pytest.mark.parametrize(("precision", "shape", "slopes"), RUNS.values(), ids=RUNS)
def test_launched_as_described_it_computes_the_operator(
    precision: PrecisionName,
    shape: TuckerShape,
    slopes: Slopes,
    emulator: list[str],
    plugin: FakePlugin,
    tmp_path: Path,
) -> None:
    """What the plugin tells TensorRT of grid, block, shared memory and arguments runs the kernel."""
    fp16 = precision == "fp16"
    dtype = "float16" if fp16 else "float32"
    operands = draw(shape, dtype)
    inputs = operands.of_type(dtype)
    expected = reference(operands, shape, slopes)
    ptx = tmp_path / "kernel.ptx"
    ptx.write_text("the ptx")
    kernels = embedded_kernels(shape, slopes, A100, precision)[:2]
    assert kernels
    for kernel in kernels:
        how = LaunchedKernel(str(ptx), kernel.tile, kernel.threads, kernel.shared_bytes)
        layer = layer_of(shape, "FP16" if fp16 else "FP32", {kernel.number: how})
        entry, text, launch, integers = told(plugin, shape, operands, layer)
        assert (entry, text) == (ENTRY, "the ptx")
        folder = tmp_path / str(kernel.number)
        folder.mkdir()
        run = EmulatedKernel(kernel.source, entry, len(inputs), len(integers), emulator, folder)
        pitch = -(-shape.m // 8) * 8 if fp16 else shape.m
        y = np.full((shape.n, *shape.out_hw, pitch), np.nan, dtype)
        y = run((launch.grid_x, launch.block_x, launch.shared_mem), inputs, integers, y)
        found = y[..., : shape.m].transpose(0, 3, 1, 2).astype(np.float64)
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error <= TOLERANCES[precision], kernel
        assert not y[..., shape.m :].any()
