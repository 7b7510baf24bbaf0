"""PENNI: a shared kernel basis with sparse coefficients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tdc_train.projections.sets.base import (
    FLOAT_BITS,
    ConstraintSet,
    Footprint,
    check_density,
    count_of,
    footprint_of,
)
from tdc_train.projections.sets.indices import sparse_bits
from tdc_train.projections.sets.kernel_basis import KernelBasis
from tdc_train.projections.sets.spaces import FixedBasis, support_kinds, supports
from tdc_train.projections.sets.top_k import largest


@dataclass(frozen=True)
class SparseBasis(KernelBasis):
    """Coefficients of at most that density (S. Li et al., "PENNI: Pruned Kernel Sharing for Efficient CNN
    Inference", ICML 2020).

    Training inside keeps the basis of the projection and each kernel's choice of it: gradients and steps
    are of the coefficients. Choosing anew after each step undoes more than a step learns.

    Bits: float32 coefficients, bitmap or gaps; the basis kernels are shared. Multiply-adds: the basis
    kernels on each input channel, and the nonzero coefficients.
    """

    name: ClassVar[str] = "sparse_basis"
    keeps_values: ClassVar[bool] = False

    density: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_density("density", self.density)

    def describe(self) -> str:
        """The set in a few words."""
        return f"{self.basis} basis kernels, coefficients of density {self.density:g}"

    def footprint(self, member: Tensor) -> Footprint:
        """Of the member's factors."""
        coefficients, basis = self.factors(member)
        values, indices = sparse_bits(coefficients != 0, FLOAT_BITS)
        return footprint_of(
            member,
            value_bits=values,
            index_bits=indices,
            shared_bits=basis.numel() * FLOAT_BITS,
            macs=member.shape[1] * basis.numel() + int(coefficients.count_nonzero()),
        )

    def settled(self, weight: Tensor) -> ConstraintSet:
        """The set that begins with the basis of the weight's member, and so finds it again."""
        _, basis = self.factors(weight)
        return replace(self, start=tuple(map(tuple, basis.flatten(1).tolist())))

    def space(self, member: Tensor) -> FixedBasis:
        """Of the basis to begin with, which is a settled set's member's to the last bit, and the member's
        choice.
        """
        coefficients, fitted = self.factors(member)
        rows = fitted.new_tensor(self.start or fitted.flatten(1).tolist())
        return FixedBasis(coefficients != 0, rows.reshape(fitted.shape))

    def _coefficients(self, kernels: Tensor, basis: Tensor) -> Tensor:
        """Those that put most into their kernels."""
        a = kernels @ torch.linalg.pinv(basis)
        sizes = (a.abs() * basis.norm(dim=1)).flatten()
        return a * largest(sizes, count_of(self.density, a.numel())).reshape(a.shape)

    def _refitted(self, kernels: Tensor, a: Tensor, basis: Tensor) -> Tensor:
        """Least squares on the support: one pseudo-inverse for each support that a kernel may have."""
        inverses = torch.linalg.pinv(supports(len(basis), basis)[:, :, None] * basis)
        kind = support_kinds(a != 0).flatten()
        fitted = torch.bmm(kernels.flatten(0, 1)[:, None], inverses[kind])
        return fitted.reshape(a.shape) * (a != 0)
