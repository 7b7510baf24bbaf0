"""Linear spaces that training inside a set does not leave: zeros that stay zero, or a basis that stays."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor


class Space(Protocol):
    """The map to the nearest weight in the space. It is linear: of a step it is the step's part there."""

    @property
    def mask(self) -> Tensor:
        """What may be other than zero."""

    def with_mask(self, mask: Tensor) -> Space:
        """The space with another mask of the same shape, on this one's device."""

    def __call__(self, weight: Tensor) -> Tensor:
        """A new tensor of the weight's shape and type."""


@dataclass(frozen=True)
class FixedZeros:
    """Weights that are zero outside `mask`, which has their shape."""

    mask: Tensor

    def with_mask(self, mask: Tensor) -> FixedZeros:
        """With another mask of the same shape."""
        return FixedZeros(mask.to(self.mask.device))

    def __call__(self, weight: Tensor) -> Tensor:
        """Zeros outside; what is not finite there is gone too."""
        return torch.where(self.mask, weight, 0.0)


@dataclass(frozen=True)
class FixedBasis:
    """Weights whose kernels are mixed from `basis` [d, kh, kw], float64, by coefficients [M, C, d] that are
    zero outside `mask`.
    """

    mask: Tensor
    basis: Tensor

    def with_mask(self, mask: Tensor) -> FixedBasis:
        """With another mask of the same shape."""
        return replace(self, mask=mask.to(self.mask.device))

    def __call__(self, weight: Tensor) -> Tensor:
        """Each kernel's least-squares fit by those of the basis that it may have."""
        kernels = weight.flatten(0, 1).flatten(1)
        order, counts, projectors = self._kinds
        rows = kernels.index_select(0, order).split(counts)
        found = [part @ by.to(part.dtype) for part, by in zip(rows, projectors, strict=True)]
        fitted = torch.zeros_like(kernels)
        if found:
            fitted.index_copy_(0, order, torch.cat(found))
        return fitted.reshape(weight.shape)

    @cached_property
    def _kinds(self) -> tuple[Tensor, list[int], list[Tensor]]:
        """The kernels that have coefficients, by the choice they have; how many of each choice, and its
        projector [k², k²]. So a step waits for nothing that a GPU computes.
        """
        rows = self.basis.flatten(1)
        kinds, order = support_kinds(self.mask).flatten().sort(stable=True)
        present, counts = kinds.unique_consecutive(return_counts=True)
        choices = supports(len(rows), rows)[present][:, :, None] * rows
        projectors = torch.linalg.pinv(choices) @ choices
        dead = int((kinds == 0).sum())
        first = 1 if dead else 0
        return order[dead:], counts[first:].tolist(), list(projectors[first:])


def supports(count: int, like: Tensor) -> Tensor:
    """Every choice of some of `count`, as rows of zeros and ones [2^count, count]."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=count))).to(like)


def support_kinds(mask: Tensor) -> Tensor:
    """Which row of `supports` the last dimension is."""
    places = 2 ** torch.arange(mask.shape[-1] - 1, -1, -1, device=mask.device)
    return (mask * places).sum(-1)
