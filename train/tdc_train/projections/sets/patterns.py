"""Kernel patterns with connectivity pruning (C. Zhang et al., "ClickTrain", ICS 2021)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tdc_deploy.errors import TdcError
from tdc_train.projections.sets.base import (
    FLOAT_BITS,
    ConstraintSet,
    Footprint,
    check_density,
    check_whole,
    count_of,
    footprint_of,
    is_3x3,
)
from tdc_train.projections.sets.indices import bits_for
from tdc_train.projections.sets.top_k import largest

CENTRE, ENTRIES, PLACES = 4, 4, 9
Pattern = tuple[int, ...]


@dataclass(frozen=True)
class KernelPatterns(ConstraintSet):
    """3x3 kernels that each keep one of a few patterns of four places, or are zero.

    `kernels` is the share of kernels that stay (connectivity). `library` holds the patterns, as places
    0 to 8; if it is empty it becomes the `patterns` most frequent ones of the trained weights: of each
    kernel the centre and the three largest others. For a given library the projection is exact. Bits: four
    float32 a kernel; one bit a kernel says whether it is there, ⌈log2 patterns⌉ more which pattern it has;
    the library is shared.
    """

    name: ClassVar[str] = "patterns"
    keeps_support: ClassVar[bool] = True

    patterns: int = 8
    kernels: float = 0.5
    library: tuple[Pattern, ...] = ()

    def __post_init__(self) -> None:
        check_whole("patterns", self.patterns, 1, 56)
        check_density("kernels", self.kernels)
        if not all(map(_is_pattern, self.library)):
            raise TdcError(f"library is {self.library!r}", expected="lists of places from 0 to 8")

    def describe(self) -> str:
        """The set in a few words."""
        return f"{len(self.library) or self.patterns} patterns, {self.kernels:g} of the kernels"

    def why_not(self, shape: tuple[int, ...]) -> str:
        """3x3 kernels only."""
        return "" if is_3x3(shape) else "its kernels are not 3x3"

    def prepared(self, weights: Mapping[str, Tensor]) -> dict[str, ConstraintSet]:
        """One library for the whole network."""
        if self.library:
            return dict.fromkeys(weights, self)
        return dict.fromkeys(
            weights, replace(self, library=frequent_patterns(weights, self.patterns))
        )

    def footprint(self, member: Tensor) -> Footprint:
        """Of the kernels that are not zero."""
        there = int(member.flatten(2).any(-1).sum())
        entries = max(map(len, self.library))
        return footprint_of(
            member,
            value_bits=there * entries * FLOAT_BITS,
            index_bits=member.shape[:2].numel() + there * bits_for(len(self.library)),
            shared_bits=len(self.library) * PLACES,
        )

    def _nearest(self, weight: Tensor) -> Tensor:
        if not self.library:
            raise TdcError("kernel patterns without a library", expected="prepared sets")
        kernels = weight.reshape(-1, PLACES)
        masks = kernels.new_zeros(len(self.library), PLACES)
        for row, pattern in zip(masks, self.library, strict=True):
            row[list(pattern)] = 1
        energy, chosen = (kernels.square() @ masks.T).max(1)
        stays = largest(energy, count_of(self.kernels, len(kernels)))
        return kernels * masks[chosen] * stays[:, None]


def _is_pattern(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and set(value) <= set(range(PLACES))


def frequent_patterns(weights: Mapping[str, Tensor], count: int) -> tuple[Pattern, ...]:
    """The most frequent patterns of the centre and the three largest other places."""
    seen: Counter[Pattern] = Counter()
    for weight in weights.values():
        sizes = weight.detach().abs().reshape(-1, PLACES).clone()
        sizes[:, CENTRE] = torch.inf
        top = sizes.topk(ENTRIES).indices.sort(-1).values
        rows, counts = top.unique(dim=0, return_counts=True)
        seen.update({tuple(row): n for row, n in zip(rows.tolist(), counts.tolist(), strict=True)})
    ranked = sorted(seen, key=lambda pattern: (-seen[pattern], pattern))
    return tuple(ranked[:count])
