"""Periodic sparse kernels: one support, repeated over the filters with a period."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tdc_train.projections.sets.base import (
    FLOAT_BITS,
    ConstraintSet,
    Footprint,
    check_density,
    check_whole,
    count_of,
    footprint_of,
)
from tdc_train.projections.sets.top_k import largest


@dataclass(frozen=True)
class Periodic(ConstraintSet):
    """Filters i, i + period, i + 2·period, … have one support, of that share of a filter's weights.

    The projection is exact: each support is where its filters together have most energy. Bits: float32
    values; each of the supports once, a bit for each place.
    """

    name: ClassVar[str] = "periodic"
    keeps_support: ClassVar[bool] = True

    period: int = 4
    density: float = 0.25

    def __post_init__(self) -> None:
        check_whole("period", self.period, 1, 1 << 20)
        check_density("density", self.density)

    def describe(self) -> str:
        """The set in a few words."""
        return f"period {self.period}, density {self.density:g}"

    def why_not(self, shape: tuple[int, ...]) -> str:
        """A support that no filter shares is no constraint of this kind."""
        if reason := super().why_not(shape):
            return reason
        return "" if shape[0] > self.period else f"{shape[0]} filters are one period"

    def footprint(self, member: Tensor) -> Footprint:
        """Of the whole supports."""
        places = member[0].numel()
        stored = len(member) * count_of(self.density, places)
        return footprint_of(
            member, value_bits=stored * FLOAT_BITS, index_bits=0, shared_bits=self.period * places
        )

    def _nearest(self, weight: Tensor) -> Tensor:
        filters = weight.flatten(1)
        phase = torch.arange(len(filters), device=weight.device) % self.period
        energy = filters.new_zeros(self.period, filters.shape[1])
        energy.index_add_(0, phase, filters.square())
        return filters * largest(energy, count_of(self.density, filters.shape[1]))[phase]
