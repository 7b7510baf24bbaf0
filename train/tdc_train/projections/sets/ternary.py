"""Ternary weights with a scale, and sums of them."""

from __future__ import annotations

import itertools
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
from tdc_train.projections.sets.levels import SCOPES, rows_of
from tdc_train.projections.sets.scales import nearest_levels

TERNARY_BITS = 2
SWEEPS = 20
# Of equal magnitudes that were added in another order.
SAME = 4e-6


@dataclass(frozen=True)
class Ternary(ConstraintSet):
    """α · {−1, 0, 1} with one α for each layer or filter.

    The projection is exact: with |w| sorted, the k largest stay for the k that maximises (Σ top-k)² / k.
    As a set for ADMM: C. Leng et al., "Extremely Low Bit Neural Network: Squeeze the Last Bit Out with
    ADMM", AAAI 2018, which alternates between α and the signs.
    Bits: 2 a weight, a float32 for each α. A product with ±1 counts as a multiply-add.
    """

    name: ClassVar[str] = "ternary"
    keeps_values: ClassVar[bool] = True

    scope: str = "channel"

    def __post_init__(self) -> None:
        check_one_of("scope", self.scope, SCOPES)

    def describe(self) -> str:
        """The set in a few words."""
        return f"ternary, a scale a {self.scope}"

    def footprint(self, member: Tensor) -> Footprint:
        """Of all weights."""
        scales = len(rows_of(member, self.scope))
        return footprint_of(
            member,
            value_bits=member.numel() * TERNARY_BITS,
            index_bits=0,
            shared_bits=scales * FLOAT_BITS,
        )

    def _nearest(self, weight: Tensor) -> Tensor:
        return nearest_levels(rows_of(weight, self.scope), 1)


@dataclass(frozen=True)
class TernarySum(ConstraintSet):
    """Σ αᵢ·Tᵢ of `terms` ternary tensors, each α one for a layer or filter.

    Residual expansion: each term is the exact ternary projection of what the ones before leave; then the
    nearest sums and the best scales in turns, as long as that gains. It ends in a local optimum; members
    whose every scale also occurs alone stay as they are. Bits: 2 a weight and term, a float32 for each α.
    Multiply-adds: the nonzeros of the sum, as for the scaled terms added up beforehand.
    """

    name: ClassVar[str] = "ternary_sum"
    keeps_values: ClassVar[bool] = True

    terms: int = 2
    scope: str = "channel"

    def __post_init__(self) -> None:
        check_whole("terms", self.terms, 1, 3)
        check_one_of("scope", self.scope, SCOPES)

    def describe(self) -> str:
        """The set in a few words."""
        return f"sum of {self.terms} ternary, scales a {self.scope}"

    def footprint(self, member: Tensor) -> Footprint:
        """Of all terms."""
        scales = len(rows_of(member, self.scope))
        return footprint_of(
            member,
            value_bits=member.numel() * TERNARY_BITS * self.terms,
            index_bits=0,
            shared_bits=scales * FLOAT_BITS * self.terms,
        )

    def _nearest(self, weight: Tensor) -> Tensor:
        rows = rows_of(weight, self.scope)
        signs = _combinations(self.terms).to(rows)
        best, scales = self._greedy(rows)
        error = (rows - best).square().sum(1)
        for _ in range(SWEEPS):
            levels = scales @ signs.T
            chosen = signs[(rows[..., None] - levels[:, None]).abs().argmin(-1)]
            products = chosen.transpose(1, 2) @ torch.cat([chosen, rows[..., None]], -1)
            inverse = torch.linalg.pinv(products[..., :-1], hermitian=True)
            scales = (inverse @ products[..., -1:])[..., 0]
            found = (chosen * scales[:, None]).sum(-1)
            left = (rows - found).square().sum(1)
            gained = left < error
            if not gained.any():
                break
            best, error = torch.where(gained[:, None], found, best), torch.minimum(left, error)
        stays = torch.tensor([self._holds(row) for row in rows], device=rows.device)
        return torch.where(stays[:, None], rows, best)

    def _greedy(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The residual expansion [R, n], and its scales [R, terms]."""
        total, scales = torch.zeros_like(rows), []
        for _ in range(self.terms):
            term = nearest_levels(rows - total, 1)
            scales.append(term.abs().amax(1))
            total = total + term
        return total, torch.stack(scales, 1)

    def _holds(self, row: Tensor) -> bool:
        """Whether it is a member already, by the scales among its magnitudes."""
        sizes = row.abs()
        same = SAME * float(sizes.max())
        found = sizes[sizes > same].sort().values
        distinct = found[torch.diff(found, prepend=found.new_zeros(1)) > same]
        if len(distinct) <= self.terms:
            return True
        if len(distinct) > (3**self.terms - 1) // 2:
            return False
        signs = _combinations(self.terms).to(row)
        return any(
            bool((distinct[:, None] - signs @ torch.stack(some)).abs().amin(1).max() <= same)
            for some in itertools.combinations(distinct, self.terms)
        )


def _combinations(terms: int) -> Tensor:
    """All [3^terms, terms] of −1, 0, 1."""
    return torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=terms)))
