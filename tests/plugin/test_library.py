"""The C interface from Python, with emulated kernels."""

from __future__ import annotations

import _ctypes
import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.plugin import library as module
from tdc_deploy.plugin.library import Device, Library, LibraryError
from tdc_deploy.plugin.params import CoreParams, Params, layer_params
from tdc_deploy.types import ConvLayer, Ranks
from tests.helpers import conv64

AMPERE = Device(80, 163 * 1024, 108)
HALF = np.float16
Arrays = dict[str, NDArray[np.float16]]

# Nothing here is symmetric, so that swapped sizes show. pads: top, left, bottom, right.
LAYER = ConvLayer(
    "l", 24, 40, (3, 5), (2, 1), (2, 1, 1, 3), (1, 2), 1, "float16", batch=2, in_hw=(9, 12)
)
RANKS = Ranks(r_in=16, r_out=8)
SLOPES = (0.5, 0.25, 0.125)


@pytest.fixture
def loaded(emulated: Path) -> Library:
    return Library(emulated)


def test_tactics_are_listed_decoded_and_described(loaded: Library) -> None:
    numbers = loaded.tactics()
    assert len(set(numbers)) == len(numbers) > 20
    for number in numbers:
        tactic = loaded.decode(number)
        described = loaded.describe(number)
        assert described.startswith(f"{tactic.family} {tactic.arithmetic} ")
        assert (tactic.parts == 1) == (tactic.split == "none")
        if tactic.parts > 1:
            assert described.endswith(f"{tactic.split}{tactic.parts}")


def test_the_emulated_device_and_build(loaded: Library) -> None:
    assert loaded.current_device() == Device(90, 227 * 1024, 132)
    assert loaded.build_info()["emulated"] is True


def test_every_legal_fp16_tactic_computes_the_layer(loaded: Library) -> None:
    """A layer with every size, stride, pad, dilation and slope of its own, against float64."""
    params = layer_params(LAYER, RANKS, SLOPES)
    arrays = random_arrays()
    expected = reference(arrays)
    tactics = [
        t for t in loaded.legal_tactics(params, AMPERE) if loaded.decode(t).arithmetic == "f16"
    ]
    assert tactics
    for number in tactics:
        got = launched(loaded, number, params, arrays)
        # fp16 rounds T1, T2 and Y by at most 2**-11 of each; sums of some dozens of random terms.
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert error <= 4e-3, loaded.describe(number)


def test_tdcs_core_computes_a_convolution(loaded: Library) -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 5, 7, 9), np.float32)
    weights = rng.standard_normal((5, 3, 2, 12), np.float32)
    expected = conv64(x, weights.transpose(3, 0, 1, 2), None, (2, 1), (1, 2, 1, 0), (1, 3))
    assert loaded.core_count() > 0
    for config in range(loaded.core_count()):
        held = [aligned(values) for values in (x, weights, np.zeros(expected.shape, np.float32))]
        params = CoreParams(*(values.ctypes.data for values in held), n=2, h=7, w=9, c=5)
        params.m, (params.h_out, params.w_out) = 12, expected.shape[2:]
        params.kernel_h, params.kernel_w, params.stride_h, params.stride_w = 3, 2, 2, 1
        params.pad_top, params.pad_left, params.dilation_h, params.dilation_w = 1, 2, 1, 3
        loaded.core_launch(config, params)
        # fp32 sums of 30 terms.
        assert np.abs(held[2] - expected).max() <= 1e-5 * np.abs(expected).max()
    with pytest.raises(LibraryError, match="no tactic"):
        loaded.core_launch(loaded.core_count(), params)
    with pytest.raises(TdcError, match="emulator; timing needs"):
        loaded.core_time(0, params)


def test_legality_depends_on_the_device(loaded: Library) -> None:
    params = layer_params(LAYER, RANKS)
    assert loaded.legal_tactics(params, AMPERE)
    on_turing = loaded.legal_tactics(params, Device(75, 64 * 1024, 40))
    assert {loaded.decode(number).family for number in on_turing} <= {"channel-first"}
    assert loaded.legal_tactics(params)  # the current device is the emulator's


def test_refusals(loaded: Library) -> None:
    params = layer_params(LAYER, RANKS)
    with pytest.raises(LibraryError, match="no tactic has this number") as raised:
        loaded.launch(-5, params)
    assert raised.value.code == module.ERROR_NO_TACTIC
    with pytest.raises(LibraryError, match="no tactic"):
        loaded.decode(-5)
    assert not loaded.is_legal(-5, params, AMPERE)
    assert loaded.workspace_bytes(-5, params) == loaded.counter_count(-5, params) == 0


def test_timing_without_a_gpu_is_refused(loaded: Library) -> None:
    number = loaded.tactics()[0]
    with pytest.raises(TdcError, match="emulator; timing needs"):
        loaded.time(number, layer_params(LAYER, RANKS))
    with pytest.raises(TdcError, match="emulator; timing needs"):
        loaded.time_nothing()


@pytest.mark.parametrize("code", module.NO_GPU)
def test_cuda_without_a_gpu_is_the_users_error(loaded: Library, code: int) -> None:
    with pytest.raises(TdcError, match="an NVIDIA GPU"):
        loaded._check("launching", code)


def test_a_build_for_another_gpu_says_how_to_build(loaded: Library) -> None:
    with pytest.raises(TdcError, match="--architectures native"):
        loaded._check("launching", module.NO_KERNEL_IMAGE)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="no plugin library at"):
        Library(tmp_path / "none.so")


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / "text.so"
    path.write_text("text")
    with pytest.raises(TdcError, match="cannot be loaded"):
        Library(path)


def test_a_library_that_is_no_plugin() -> None:
    with pytest.raises(TdcError, match="is not a plugin of tdc-deploy"):
        Library(Path(_ctypes.__file__))


def test_another_interface(emulated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "API_VERSION", 99)
    with pytest.raises(TdcError, match="interface 99"):
        Library(emulated)


@pytest.mark.parametrize(
    ("groups", "ranks"), [(2, Ranks(8, 8)), (1, Ranks(12, 8)), (1, Ranks(8, 4))]
)
def test_what_the_kernels_do_not_take(groups: int, ranks: Ranks) -> None:
    layer = ConvLayer("l", 16, 16, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), groups, "f", 1, (8, 8))
    with pytest.raises(TdcError, match="multiples of 8"):
        layer_params(layer, ranks)


def random_arrays() -> Arrays:
    """X and R as [n, c, h, w], the weights as the kernels take them, biases."""
    rng = np.random.default_rng(3)
    ri, ro, (kh, kw) = RANKS.r_in, RANKS.r_out, LAYER.kernel
    shapes = {
        "x": (LAYER.batch, LAYER.c_in, *LAYER.in_hw),
        "residual": (LAYER.batch, LAYER.c_out, *LAYER.out_hw),
        "first": (ri, LAYER.c_in),
        "first_bias": (ri,),
        "core": (kh, kw, ro, ri),
        "core_bias": (ro,),
        "last": (LAYER.c_out, ro),
        "bias": (LAYER.c_out,),
    }
    fan_in = {"first": LAYER.c_in, "core": ri * kh * kw, "last": ro}
    return {
        name: (rng.standard_normal(shape) / np.sqrt(fan_in.get(name, 1))).astype(HALF)
        for name, shape in shapes.items()
    }


def reference(a: Arrays) -> NDArray[np.float64]:
    """The operator's definition in float64."""
    t1 = activated(conv64(a["x"], a["first"][:, :, None, None], a["first_bias"]), SLOPES[0])
    core = a["core"].transpose(2, 3, 0, 1)
    geometry = (LAYER.strides, LAYER.pads, LAYER.dilations)
    t2 = activated(conv64(t1, core, a["core_bias"], *geometry), SLOPES[1])
    y = conv64(t2, a["last"][:, :, None, None], a["bias"]) + a["residual"].astype(np.float64)
    return activated(y, SLOPES[2])


def activated(values: NDArray[np.float64], slope: float) -> NDArray[np.float64]:
    return np.where(values >= 0, values, slope * values)


def launched(loaded: Library, number: int, params: Params, arrays: Arrays) -> NDArray[np.float64]:
    """Y [n, m, h_out, w_out] of one launch; host memory is the emulator's device memory."""
    buffers: dict[str, NDArray[Any]] = {name: aligned(values) for name, values in arrays.items()}
    buffers["x"] = aligned(arrays["x"].transpose(0, 2, 3, 1))
    buffers["residual"] = aligned(arrays["residual"].transpose(0, 2, 3, 1))
    buffers["y"] = aligned(np.full_like(buffers["residual"], np.nan))
    buffers["workspace"] = aligned(np.zeros(loaded.workspace_bytes(number, params), np.uint8))
    buffers["counters"] = aligned(np.zeros(loaded.counter_count(number, params), np.uint32))
    for name, values in buffers.items():
        setattr(params, name, values.ctypes.data if values.size else None)
    loaded.launch(number, params)
    return np.asarray(buffers["y"].transpose(0, 3, 1, 2), np.float64)


def aligned(values: NDArray[Any]) -> NDArray[Any]:
    """A contiguous copy at a multiple of 16 bytes, as CUDA's allocations are."""
    values = np.ascontiguousarray(values)
    memory = np.empty(values.nbytes + 16, np.uint8)
    start = -memory.ctypes.data % 16
    out = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    out[...] = values
    return out


def test_pointers_are_addresses() -> None:
    assert ctypes.sizeof(Params) == 11 * 8 + 17 * 4 + 3 * 4
