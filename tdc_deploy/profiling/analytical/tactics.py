"""The kernels' tactics, as plugins/kernels/tactics.cpp numbers and names them.

A tactic is one int: the family in bits 0-3, the arithmetic in 4-7, the configuration in 8-15, the
split in 16-19 and log2(parts) in 20-23.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias, get_args

from tdc_deploy.errors import TdcError
from tdc_deploy.plugin.sources import MARK, source_root

Family = Literal["fused", "unfused", "channel-first"]
Arithmetic = Literal["f16", "tf32", "f32"]
Split = Literal["none", "cluster", "ticket"]

FAMILIES: tuple[Family, ...] = get_args(Family)
ARITHMETICS: tuple[Arithmetic, ...] = get_args(Arithmetic)
SPLITS: tuple[Split, ...] = get_args(Split)

# The most pixels of a tile, and of a pass over its halo, whose r_in several blocks may share, and
# how many blocks.
LARGEST_SPLIT_TILE = 64
PARTS = (2, 4, 8)


@dataclass(frozen=True)
class FusedConfig:
    """tile_h x tile_w output pixels a block, `columns` channels a pass, `stages` chunks under way.

    Stage 1 takes `rows` pixels of the halo a pass.
    """

    tile_h: int
    tile_w: int
    rows: int
    warps_m: int
    warps_n: int
    columns: int
    stages: int

    def __str__(self) -> str:
        tile, warps = f"{self.tile_h}x{self.tile_w}", f"w{self.warps_m}x{self.warps_n}"
        return f"{tile} r{self.rows} {warps} c{self.columns} s{self.stages}"

    @property
    def pixels(self) -> int:
        """Output pixels of a block."""
        return self.tile_h * self.tile_w

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps_m * self.warps_n


@dataclass(frozen=True)
class UnfusedConfig:
    """`rows` output pixels by `columns` channels a block, of each of the three convolutions."""

    rows: int
    columns: int
    warps_m: int
    warps_n: int
    stages: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns} w{self.warps_m}x{self.warps_n} s{self.stages}"

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps_m * self.warps_n


@dataclass(frozen=True)
class ChannelFirstConfig:
    """TDC's core kernel: tile_h x tile_w output pixels a thread, `channels` of r_in a block."""

    tile_h: int
    tile_w: int
    channels: int

    def __str__(self) -> str:
        return f"{self.tile_h}x{self.tile_w} c{self.channels}"


Config: TypeAlias = FusedConfig | UnfusedConfig | ChannelFirstConfig
CONFIGS: dict[Family, type[Config]] = {
    "fused": FusedConfig,
    "unfused": UnfusedConfig,
    "channel-first": ChannelFirstConfig,
}


@dataclass(frozen=True)
class Tactic:
    """One way to run the operator; `index` is the configuration's place in its list."""

    family: Family
    arithmetic: Arithmetic
    index: int
    config: Config
    split: Split = "none"
    parts: int = 1

    @property
    def number(self) -> int:
        """The int that the plugin knows it by."""
        family, arithmetic = FAMILIES.index(self.family) + 1, ARITHMETICS.index(self.arithmetic) + 1
        split, log2_parts = SPLITS.index(self.split), self.parts.bit_length() - 1
        return family | arithmetic << 4 | self.index << 8 | split << 16 | log2_parts << 20

    def __str__(self) -> str:
        split = "" if self.split == "none" else f" {self.split}{self.parts}"
        return f"{self.family} {self.arithmetic} {self.config}{split}"


@cache
def all_tactics() -> tuple[Tactic, ...]:
    """Every tactic, in the order of configs.def; a configuration's splits follow it."""
    text = (source_root() / MARK).read_text(encoding="utf-8")
    return tuple(parse_configs(text.splitlines()))


def parse_configs(lines: Iterable[str]) -> Iterable[Tactic]:
    """The tactics of the lines of a configs.def; comments and preprocessor lines are passed over.

    Raises:
        ValueError: another line is no configuration.
    """
    counts: Counter[tuple[Family, Arithmetic]] = Counter()
    for line in lines:
        if not line.strip() or line.startswith(("//", "#")):
            continue
        family, arithmetic, config = _parse_line(line)
        index = counts[family, arithmetic]
        counts[family, arithmetic] += 1
        for split in SPLITS:
            for parts in _parts_of(config, split):
                yield Tactic(family, arithmetic, index, config, split, parts)


def decode(number: int) -> Tactic:
    """The tactic of that number.

    Raises:
        TdcError: there is none.
    """
    try:
        return _by_number()[number]
    except KeyError:
        raise TdcError(
            f"tactic {number} does not exist",
            expected="a number that `tdc-deploy tactics` lists",
        ) from None


@cache
def _by_number() -> dict[int, Tactic]:
    return {tactic.number: tactic for tactic in all_tactics()}


def _parse_line(line: str) -> tuple[Family, Arithmetic, Config]:
    for family in FAMILIES:
        macro = f"TDC_{family.replace('-', '_').upper()}"
        found = re.fullmatch(rf"{macro}_(F16|TF32|F32)\(([\d, ]+)\)", line.strip())
        if found:
            (arithmetic,) = (a for a in ARITHMETICS if a == found[1].lower())
            return family, arithmetic, CONFIGS[family](*map(int, found[2].split(",")))
    raise ValueError(f"not a configuration: {line!r}")


def _parts_of(config: Config, split: Split) -> tuple[int, ...]:
    if split == "none":
        return (1,)
    if not isinstance(config, FusedConfig):
        return ()
    return PARTS if max(config.pixels, config.rows) <= LARGEST_SPLIT_TILE else ()
