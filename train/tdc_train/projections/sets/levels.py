"""Quantisation levels: uniform ones with the best scale, and powers of two (ADMM-NN, ASPLOS 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tdc_train.projections.sets.base import (
    FLOAT_BITS,
    ConstraintSet,
    Footprint,
    check_one_of,
    check_whole,
    footprint_of,
)
from tdc_train.projections.sets.indices import sparse_bits
from tdc_train.projections.sets.scales import nearest_levels

SCOPES = ("layer", "channel")
# An exponent of float32, in a byte.
EXPONENT_BITS = 8
# How far below the largest magnitude the largest power may be.
EXPONENTS = 12


@dataclass(frozen=True)
class UniformLevels(ConstraintSet):
    """Whole multiples of a scale for each layer or filter, from −(2^(bits−1)−1) to that.

    The scale is the optimal one (`scales`), for many levels or large layers the best that alternation
    finds. With `keep_zeros` what is zero stays it and nothing else becomes it: the second half of pruning
    and quantising one after the other, as ADMM-NN does. Bits: `bits` a weight, a float32 for each scale;
    with `keep_zeros` only the nonzeros, and a bitmap or gaps.
    """

    name: ClassVar[str] = "levels"
    keeps_values: ClassVar[bool] = True

    bits: int = 4
    scope: str = "channel"
    keep_zeros: bool = False

    def __post_init__(self) -> None:
        check_whole("bits", self.bits, 2, 16)
        check_one_of("scope", self.scope, SCOPES)

    @property
    def keeps_support(self) -> bool:  # type: ignore[override]
        """Whether zeros stay."""
        return self.keep_zeros

    def describe(self) -> str:
        """The set in a few words."""
        zeros = ", zeros kept" if self.keep_zeros else ""
        return f"{self.bits} bits a weight, a scale a {self.scope}{zeros}"

    def footprint(self, member: Tensor) -> Footprint:
        """Of all weights, or of the nonzeros."""
        values, indices = member.numel() * self.bits, 0
        if self.keep_zeros:
            values, indices = sparse_bits(member != 0, self.bits)
        scales = len(rows_of(member, self.scope)) * FLOAT_BITS
        return footprint_of(member, value_bits=values, index_bits=indices, shared_bits=scales)

    def _nearest(self, weight: Tensor) -> Tensor:
        rows = rows_of(weight, self.scope)
        return nearest_levels(rows, 2 ** (self.bits - 1) - 1, least=int(self.keep_zeros))


@dataclass(frozen=True)
class PowersOfTwo(ConstraintSet):
    """Zero and ±2^e for 2^(bits−1)−1 exponents in a row, whose largest is chosen for each layer or filter.

    Products with them are shifts. Nearest in value among windows whose largest power is up to 12 below the
    largest magnitude's. Bits: `bits` a weight, 8 for each window's exponent.
    """

    name: ClassVar[str] = "powers_of_two"
    keeps_values: ClassVar[bool] = True

    bits: int = 4
    scope: str = "layer"

    def __post_init__(self) -> None:
        check_whole("bits", self.bits, 2, 6)
        check_one_of("scope", self.scope, SCOPES)

    def describe(self) -> str:
        """The set in a few words."""
        return f"powers of two in {self.bits} bits, a range a {self.scope}"

    def footprint(self, member: Tensor) -> Footprint:
        """Of all weights."""
        windows = len(rows_of(member, self.scope))
        return footprint_of(
            member,
            value_bits=member.numel() * self.bits,
            index_bits=0,
            shared_bits=windows * EXPONENT_BITS,
        )

    def _nearest(self, weight: Tensor) -> Tensor:
        rows = rows_of(weight, self.scope)
        top = torch.frexp(rows.abs().amax(1, keepdim=True)).exponent
        best = self._within(rows, top)
        error = (rows - best).square().sum(1, keepdim=True)
        for below in range(1, EXPONENTS):
            found = self._within(rows, top - below)
            left = (rows - found).square().sum(1, keepdim=True)
            best = torch.where(left < error, found, best)
            error = torch.minimum(left, error)
        return best

    def _within(self, rows: Tensor, top: Tensor) -> Tensor:
        """The nearest of the powers whose largest exponent is `top` [R, 1]."""
        least = top - (2 ** (self.bits - 1) - 2)
        mantissa, exponent = torch.frexp(rows.abs())
        # |w| = mantissa · 2^exponent with a mantissa from ½: the middle between two powers is at ¾.
        nearest = torch.where(mantissa < 0.75, exponent - 1, exponent)
        power = torch.ldexp(
            torch.ones_like(rows), torch.maximum(torch.minimum(nearest, top), least)
        )
        return torch.where(
            rows.abs() < torch.ldexp(torch.ones_like(rows), least - 1), 0.0, rows.sign() * power
        )


def rows_of(weight: Tensor, scope: str) -> Tensor:
    """The weight [groups, values] by what shares a scale: each output channel, or the whole layer."""
    return weight.flatten(1) if scope == "channel" else weight.reshape(1, -1)
