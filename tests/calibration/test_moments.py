from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tdc_calibration.moments import Accumulator, accumulator_of
from tdc_calibration.moments.channels import Channels
from tdc_calibration.moments.direct import Direct
from tdc_calibration.moments.pixels import Pixels
from tdc_calibration.moments.shifts import Shifts

from tdc_deploy.types import ConvLayer

Array = NDArray[Any]
WAYS = [Direct, Shifts]


def layer(
    channels: int = 3,
    kernel: tuple[int, int] = (3, 3),
    hw: tuple[int, int] = (7, 6),
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (1, 1, 1, 1),
    dilations: tuple[int, int] = (1, 1),
) -> ConvLayer:
    return ConvLayer("conv", channels, 4, kernel, strides, pads, dilations, 1, "float32", 1, hw)


def images(of: ConvLayer, count: int = 5, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, of.c_in, *of.in_hw)) + 0.5
    return np.maximum(x, 0).astype(np.float32)


def patches(of: ConvLayer, x: Array) -> Array:
    """Every patch [N·out_h·out_w, C, kh, kw] in float64, pixel by pixel."""
    top, left, _, _ = of.pads
    found = np.zeros((len(x), *of.out_hw, of.c_in, *of.kernel))
    for i, j in itertools.product(*map(range, of.out_hw)):
        for a, b in itertools.product(*map(range, of.kernel)):
            row = i * of.strides[0] + a * of.dilations[0] - top
            column = j * of.strides[1] + b * of.dilations[1] - left
            if 0 <= row < of.in_hw[0] and 0 <= column < of.in_hw[1]:
                found[:, i, j, :, a, b] = x[:, :, row, column]
    return found.reshape(-1, of.c_in, *of.kernel)


def explicit(of: ConvLayer, x: Array) -> Array:
    rows = patches(of, x)
    rows = rows.reshape(len(rows), -1)
    moment: Array = rows.T @ rows / len(rows)
    return moment


def measured(way: Accumulator, x: Array, *cuts: int) -> Array:
    for part in np.split(x, cuts):
        way.add(part)
    return way.moment()


def check(found: Array, expected: Array, tolerance: float) -> None:
    assert found.dtype == np.float64
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, found.T)
    scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    assert (np.abs(found - expected) <= tolerance * scale + 1e-300).all()


STRIDE_1 = [
    layer(),
    layer(pads=(0, 0, 0, 0)),
    layer(pads=(0, 2, 1, 0)),
    layer(pads=(3, 4, 3, 2)),
    layer(kernel=(5, 5), pads=(2, 2, 2, 2)),
    layer(kernel=(5, 5), pads=(1, 0, 0, 3)),
    layer(kernel=(1, 3), pads=(0, 1, 0, 1)),
    layer(kernel=(3, 1), pads=(1, 0, 0, 0)),
    layer(kernel=(2, 4), pads=(0, 1, 1, 2)),
    layer(dilations=(2, 3), pads=(2, 3, 2, 3)),
    layer(dilations=(3, 1), pads=(1, 1, 4, 0)),
    layer(hw=(1, 1)),
    layer(hw=(1, 5), kernel=(5, 3), pads=(2, 1, 2, 1)),
    layer(hw=(2, 2), dilations=(2, 2), pads=(2, 2, 2, 2)),
    layer(hw=(3, 3), pads=(0, 0, 0, 0)),
    layer(1, (3, 3), (4, 4)),
]
OTHERS = [
    layer(kernel=(1, 1), pads=(0, 0, 0, 0)),
    layer(kernel=(1, 1), pads=(0, 0, 0, 0), strides=(2, 2)),
    layer(kernel=(1, 1), pads=(1, 0, 2, 1), strides=(2, 1)),
    layer(strides=(2, 2)),
    layer(strides=(2, 2), pads=(0, 0, 1, 1)),
    layer(strides=(2, 3), dilations=(2, 1), pads=(2, 1, 1, 2)),
    layer(kernel=(7, 7), strides=(2, 2), pads=(3, 3, 3, 3), hw=(11, 12)),
    layer(strides=(3, 3), hw=(4, 4), pads=(0, 0, 0, 0)),
]


# Both sum float64 products of the same numbers, in another order.
@pytest.mark.parametrize("of", STRIDE_1, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_the_structure_is_exact(of: ConvLayer, way: type[Direct] | type[Shifts]) -> None:
    x = images(of)
    check(measured(way(of, np.float64), x, 2, 3), explicit(of, x), 1e-12)


@pytest.mark.parametrize("of", OTHERS, ids=str)
def test_strides_are_exact(of: ConvLayer) -> None:
    x = images(of)
    check(measured(Direct(of, np.float64), x, 1), explicit(of, x), 1e-12)


PIXELS = [
    layer(5, (1, 1), (2, 2), pads=(0, 0, 0, 0)),
    layer(5, (1, 1), (7, 6), pads=(0, 0, 0, 0)),
    layer(5, (1, 1), (7, 6), pads=(0, 0, 0, 0), strides=(2, 3)),
    layer(50, (1, 1), (7, 6), pads=(0, 0, 0, 0), strides=(3, 1)),
    layer(3, (1, 1), (90, 80), pads=(0, 0, 0, 0)),
]


@pytest.mark.parametrize("of", PIXELS, ids=str)
@pytest.mark.parametrize("positions", [1, 10, 100, 2500])
def test_pixels_are_exact(of: ConvLayer, positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdc_calibration.moments.pixels.POSITIONS", positions)
    monkeypatch.setattr("tdc_calibration.moments.products.POSITIONS", positions)
    monkeypatch.setattr("tdc_calibration.moments.products.COLUMNS", 4)
    x = images(of, 9)
    check(measured(Pixels(of, np.float64), x, 1, 3, 4), explicit(of, x), 1e-12)


@pytest.mark.parametrize("of", STRIDE_1 + OTHERS, ids=str)
def test_by_channel_is_the_mean_over_positions(of: ConvLayer) -> None:
    x = images(of)
    positions = of.kernel[0] * of.kernel[1]
    whole = explicit(of, x).reshape(of.c_in, positions, of.c_in, positions)
    expected = np.einsum("cpdp->cd", whole) / positions
    check(measured(Channels(of, np.float64), x, 4), expected, 1e-12)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("positions", [1, 60, 200])
def test_buffers_of_any_size(
    way: type[Direct] | type[Shifts], positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tdc_calibration.moments.direct.POSITIONS", positions)
    monkeypatch.setattr("tdc_calibration.moments.products.COLUMNS", 1 + positions // 10)
    monkeypatch.setattr("tdc_calibration.moments.shifts.IMAGES", 1 + positions // 60)
    monkeypatch.setattr("tdc_calibration.moments.shifts.FREQUENCIES", positions)
    of = layer()
    # The second filling is shorter: what the first left must not be seen.
    x = images(of, 9)
    check(measured(way(of, np.float64), x, 4, 5, 7), explicit(of, x), 1e-12)


# Sums of at most 2048 float32 products, some of which are rounded: 2048·2⁻²⁴ = 1.2e-4 is the bound, and
# roundings that partly cancel stay far below it.
@pytest.mark.parametrize("of", [layer(16, hw=(28, 28)), layer(16, hw=(29, 27), strides=(2, 2))])
def test_float32_is_close(of: ConvLayer) -> None:
    x = images(of, 8) * np.exp(np.arange(16, dtype=np.float32))[:, None, None]
    check(measured(accumulator_of(of), x), explicit(of, x), 1e-6)


def test_the_cheapest_way_is_taken() -> None:
    assert isinstance(accumulator_of(layer(64, hw=(56, 56))), Shifts)
    assert isinstance(accumulator_of(layer(512, hw=(7, 7))), Shifts)
    assert isinstance(accumulator_of(layer(64, hw=(56, 56), strides=(2, 2))), Direct)
    assert isinstance(accumulator_of(layer(64, (1, 1), (56, 56), pads=(0, 0, 0, 0))), Pixels)
    assert isinstance(accumulator_of(layer(64, (1, 1), (56, 56))), Direct)
    assert isinstance(accumulator_of(layer(), max_patch=26), Channels)
    assert isinstance(accumulator_of(layer(), max_patch=27), (Direct, Shifts))
    # One patch: nearly all of what the shifts see is not in it.
    assert isinstance(accumulator_of(layer(512, hw=(3, 3), pads=(0, 0, 0, 0))), Direct)


def test_the_work_that_is_said() -> None:
    """A 3x3 layer of ResNet-50: transforms of 60x60, and a border of some rows and columns of 56."""
    of = layer(64, hw=(56, 56))
    assert Shifts(of).macs < Direct(of).macs / 15
    assert Shifts(of).macs >= 2 * 64**2 * 58 * 30
    assert Direct(of).macs == 576 * 577 // 2 * 56 * 56


def test_channels_that_are_always_zero_stay_so() -> None:
    of = layer()
    x = images(of)
    x[:, 1] = 0
    moment = measured(Shifts(of), x)
    assert not moment[9:18].any()
    assert not moment[:, 9:18].any()
