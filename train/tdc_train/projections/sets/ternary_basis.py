"""ESCALATE: a shared kernel basis with ternary coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tdc_train.projections.sets.base import FLOAT_BITS, Footprint, footprint_of
from tdc_train.projections.sets.kernel_basis import KernelBasis
from tdc_train.projections.sets.scales import nearest_levels

TERNARY_BITS = 2


@dataclass(frozen=True)
class TernaryBasis(KernelBasis):
    """Coefficients of −1, 0 and 1 times a scale for each filter (S. Li et al., "ESCALATE: Boosting the
    Efficiency of Sparse CNN Accelerator with Kernel Decomposition", MICRO 2021).

    A filter's are the exact ternary projection of its least-squares coefficients, weighted by the energy of
    the basis kernels. Bits: 2 a coefficient; the basis and a float32 for each filter are shared. A sum
    counts as a multiply-add.
    """

    name: ClassVar[str] = "ternary_basis"

    def describe(self) -> str:
        """The set in a few words."""
        return f"{self.basis} basis kernels, ternary coefficients"

    def footprint(self, member: Tensor) -> Footprint:
        """Of the member's factors."""
        coefficients, basis = self.factors(member)
        return footprint_of(
            member,
            value_bits=coefficients.numel() * TERNARY_BITS,
            index_bits=0,
            shared_bits=(basis.numel() + len(member)) * FLOAT_BITS,
            macs=member.shape[1] * basis.numel() + int(coefficients.count_nonzero()),
        )

    def _coefficients(self, kernels: Tensor, basis: Tensor) -> Tensor:
        a = (kernels @ torch.linalg.pinv(basis)).flatten(1)
        weights = basis.square().sum(1).repeat(kernels.shape[1])
        return nearest_levels(a, 1, weights=weights).reshape(*kernels.shape[:2], len(basis))

    def _refitted(self, kernels: Tensor, a: Tensor, basis: Tensor) -> Tensor:
        """The best scale of each filter for its signs."""
        signs = a.sign()
        made = (signs @ basis).flatten(1)
        energy = made.square().sum(1).clamp_min(torch.finfo(made.dtype).tiny)
        scales = (made * kernels.flatten(1)).sum(1) / energy
        return signs * scales[:, None, None]
