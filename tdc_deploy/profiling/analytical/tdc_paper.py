"""TDC's own analytical model, for its core kernel in fp32 at batch 1 (Xiang et al., PPoPP 2023).

The kernel computes a 3x3 convolution of stride 1 and padding 1 with tiles of TH x TW output pixels and
TC input channels; a thread has one output channel. The model's rule: order the tiles by compute, keep
the best 5%, and of these take the one that moves the least memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.launches import ceil_div
from tdc_deploy.profiling.analytical.occupancy import occupancy

KERNEL = 3
HALO = KERNEL - 1
TAPS = KERNEL * KERNEL
FLOAT_BYTES = 4
KEPT_SHARE = 0.05

# The tiles that are tried; the paper's own list is not published with its figures.
TILE_SIZES = range(1, 9)
CHANNELS = (1, 2, 4, 8, 16, 32)

# Registers of a thread beside its sums: nine weights, addresses, counters. A guess.
OTHER_REGISTERS = 32


@dataclass(frozen=True)
class CoreShape:
    """A core convolution: c input and n output channels, h x w pixels."""

    c: int
    n: int
    h: int
    w: int

    def __post_init__(self) -> None:
        if min(self.c, self.n, self.h, self.w) < 1 or self.n > 1024:
            raise TdcError(
                f"impossible core: {self}",
                expected="sizes of at least 1, at most 1024 output channels",
            )

    def __str__(self) -> str:
        return f"{self.c},{self.n},{self.h}x{self.w}"


@dataclass(frozen=True)
class Tile:
    """TH x TW output pixels and TC input channels."""

    th: int
    tw: int
    tc: int

    def __str__(self) -> str:
        return f"{self.th}x{self.tw} c{self.tc}"


@dataclass(frozen=True)
class TileCost:
    """The model's figures for a tile: `compute` in work times waves, `volume` in elements."""

    tile: Tile
    waves: int
    compute: int
    volume: int


@dataclass(frozen=True)
class MeasuredCase:
    """The fastest tile that the authors measured on an A100, and its milliseconds."""

    shape: CoreShape
    best: Tile
    ms: float


@dataclass(frozen=True)
class Comparison:
    """The model's pick beside the measured best; `place` is that one's in the order by compute, from 1."""

    case: MeasuredCase
    pick: TileCost
    best: TileCost
    place: int
    tiles: int


# Measured by the paper's authors on an A100, published with their code.
MEASURED = (
    MeasuredCase(CoreShape(192, 160, 7, 7), Tile(1, 3, 16), 0.0259),
    MeasuredCase(CoreShape(96, 64, 7, 7), Tile(3, 3, 4), 0.0181),
    MeasuredCase(CoreShape(64, 32, 224, 224), Tile(6, 6, 16), 0.2598),
)


def tile_cost(shape: CoreShape, tile: Tile, device: Device) -> TileCost:
    """Compute and memory volume of a tile, as the paper defines them.

    Raises:
        TdcError: a block of it does not fit a multiprocessor.
    """
    pixels = ceil_div(shape.h, tile.th) * ceil_div(shape.w, tile.tw)
    blocks = pixels * ceil_div(shape.c, tile.tc)
    halo = (tile.th + HALO) * (tile.tw + HALO)
    at_once = occupancy(
        device, shape.n, halo * tile.tc * FLOAT_BYTES, tile.th * tile.tw + OTHER_REGISTERS
    )
    if not at_once.blocks:
        raise TdcError(f"tile {tile} takes too much {at_once.limit}", expected="a smaller tile")
    waves = ceil_div(blocks, device.multiprocessors * at_once.blocks)
    volume = pixels * halo * shape.c + (tile.th * tile.tw + TAPS * tile.tc) * shape.n * blocks
    return TileCost(tile, waves, halo * tile.tc * TAPS * waves, volume)


def ordered_tiles(shape: CoreShape, device: Device) -> list[TileCost]:
    """All tiles, least compute first; of equal compute, least volume first."""
    costs = [tile_cost(shape, tile, device) for tile in _tiles(shape)]
    return sorted(costs, key=lambda cost: (cost.compute, cost.volume))


def pick_tile(shape: CoreShape, device: Device) -> TileCost:
    """The tile that the paper's rule picks."""
    ordered = ordered_tiles(shape, device)
    kept = ordered[: math.ceil(KEPT_SHARE * len(ordered))]
    return min(kept, key=lambda cost: cost.volume)


def compare_measured(device: Device) -> list[Comparison]:
    """The rule's picks beside the tiles that the authors measured to be fastest."""
    rows = []
    for case in MEASURED:
        ordered = ordered_tiles(case.shape, device)
        best = tile_cost(case.shape, case.best, device)
        place = 1 + [cost.tile for cost in ordered].index(case.best)
        pick = pick_tile(case.shape, device)
        rows.append(Comparison(case, pick, best, place, len(ordered)))
    return rows


def _tiles(shape: CoreShape) -> Iterable[Tile]:
    for th in TILE_SIZES:
        for tw in TILE_SIZES:
            for tc in CHANNELS:
                if th <= shape.h and tw <= shape.w and tc <= shape.c:
                    yield Tile(th, tw, tc)
