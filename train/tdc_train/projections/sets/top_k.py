"""Unstructured sparsity: the largest magnitudes stay (ADMM-NN, ASPLOS 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tdc_train.projections.sets.base import (
    FLOAT_BITS,
    ConstraintSet,
    Footprint,
    check_share,
    count_of,
    footprint_of,
    kept_of,
)
from tdc_train.projections.sets.indices import sparse_bits


@dataclass(frozen=True)
class TopK(ConstraintSet):
    """Weights with at most `kept` nonzeros, or that share of each layer's; the projection is exact.

    With `scope = "network"` the density is of all layers together: each layer may keep as many as the
    nearest such network, of the trained weights, has there. Bits: values float32, bitmap or gaps.
    """

    name: ClassVar[str] = "top_k"
    keeps_support: ClassVar[bool] = True

    density: float = 0.1
    scope: str = "layer"
    kept: int = 0

    def __post_init__(self) -> None:
        check_share(self.density, self.scope, self.kept)

    def describe(self) -> str:
        """The set in a few words."""
        share = f"{self.kept}" if self.kept else f"{self.density:g}"
        return f"top {share}" + (" of the network" if self.scope == "network" else "")

    def prepared(self, weights: Mapping[str, Tensor]) -> dict[str, ConstraintSet]:
        """Of a network, how many each layer keeps; a layer that would lose all keeps one."""
        if self.scope == "layer" or self.kept:
            return dict.fromkeys(weights, self)
        counts = kept_of_each([w.detach().abs() for w in weights.values()], self.density)
        return {name: replace(self, kept=k) for name, k in zip(weights, counts, strict=True)}

    def footprint(self, member: Tensor) -> Footprint:
        """Of the nonzeros that are there."""
        values, indices = sparse_bits(member != 0, FLOAT_BITS)
        return footprint_of(member, value_bits=values, index_bits=indices)

    def _nearest(self, weight: Tensor) -> Tensor:
        count = kept_of(self.density, self.scope, self.kept, weight.numel())
        return weight * largest(weight.abs().flatten(), count).reshape(weight.shape)


def kept_of_each(sizes: Sequence[Tensor], density: float) -> list[int]:
    """How many of each tensor are among the largest of all; at least one."""
    flat = torch.cat([size.flatten() for size in sizes])
    mask = largest(flat, count_of(density, len(flat)))
    return [max(1, int(part.sum())) for part in mask.split([size.numel() for size in sizes])]


def largest(values: Tensor, count: int) -> Tensor:
    """Mask of the `count` largest in the last dimension, of equal ones the first."""
    order = values.argsort(dim=-1, descending=True, stable=True)[..., :count]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(-1, order, True)
