"""PENNI: a shared kernel basis with sparse coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from tdc_deploy.errors import TdcError
from tdc_train.projections.sets.base import (
    FLOAT_BITS,
    ConstraintSet,
    Footprint,
    check_share,
    footprint_of,
    kept_of,
)
from tdc_train.projections.sets.indices import sparse_bits
from tdc_train.projections.sets.kernel_basis import KernelBasis
from tdc_train.projections.sets.spaces import FixedBasis, support_kinds, supports
from tdc_train.projections.sets.top_k import kept_of_each, largest

# Of float32 weights, which a fit of factors finds again to some 1e-7.
SAME = 1e-4


@dataclass(frozen=True)
class SparseBasis(KernelBasis):
    """Coefficients of at most that density (S. Li et al., "PENNI: Pruned Kernel Sharing for Efficient CNN
    Inference", ICML 2020).

    With `scope = "network"` the density is of all layers together: each may keep as many as are among the
    largest of the trained weights' there, and at least one.

    Training inside keeps the basis of the projection and each kernel's choice of it, so that only the
    coefficients move. Choosing anew after each step undoes more than a step learns.

    Bits: float32 coefficients, bitmap or gaps; the basis kernels are shared. Multiply-adds: the basis
    kernels on each input channel, and the nonzero coefficients.
    """

    name: ClassVar[str] = "sparse_basis"
    keeps_values: ClassVar[bool] = False

    density: float = 0.25
    scope: str = "layer"
    kept: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.density, self.scope, self.kept)

    def describe(self) -> str:
        """The set in a few words."""
        share = (
            f"{self.kept} coefficients"
            if self.kept
            else f"coefficients of density {self.density:g}"
        )
        return f"{self.basis} basis kernels, {share}"

    def prepared(self, weights: Mapping[str, Tensor]) -> dict[str, ConstraintSet]:
        """Each with its trained weight's basis to begin with; of a network, how many coefficients each
        layer keeps.
        """
        sets = super().prepared(weights)
        if self.scope == "layer" or self.kept:
            return sets
        sizes = []
        for name, weight in weights.items():
            kernels = weight.detach().double().flatten(2)
            basis = kernels.new_tensor(cast(SparseBasis, sets[name]).start)
            sizes.append(_sizes(kernels @ torch.linalg.pinv(basis), basis))
        counts = kept_of_each(sizes, self.density)
        made = zip(sets.items(), counts, strict=True)
        return {name: replace(cast(SparseBasis, kind), kept=count) for (name, kind), count in made}

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

    def settled(self, weight: Tensor) -> SparseBasis:
        """The set that begins with the basis of the weight's member, and so finds it again."""
        _, basis = self.factors(weight)
        return replace(self, start=tuple(map(tuple, basis.flatten(1).tolist())))

    def space(self, member: Tensor) -> FixedBasis:
        """Of the basis to begin with, which is a settled set's member's to the last bit, and the member's
        choice.

        Raises:
            TdcError: the set is not settled for this member.
        """
        member = member.detach()
        coefficients, fitted = self.factors(member)
        rows = fitted.new_tensor(self.start or fitted.flatten(1).tolist())
        space = FixedBasis(coefficients != 0, rows.reshape(fitted.shape))
        if not float((space(member) - member).norm()) <= SAME * float(member.norm()):
            raise TdcError(
                f"a weight of shape {tuple(member.shape)} that is not mixed from the kernels it is held in",
                expected=f"a member of {self.describe()}",
                fix="it is of another version: project it again",
            )
        return space

    def _coefficients(self, kernels: Tensor, basis: Tensor) -> Tensor:
        """Those that put most into their kernels."""
        a = kernels @ torch.linalg.pinv(basis)
        count = kept_of(self.density, self.scope, self.kept, a.numel())
        return a * largest(_sizes(a, basis).flatten(), count).reshape(a.shape)

    def _refitted(self, kernels: Tensor, a: Tensor, basis: Tensor) -> Tensor:
        """Least squares on the support: one pseudo-inverse for each support that a kernel may have."""
        inverses = torch.linalg.pinv(supports(len(basis), basis)[:, :, None] * basis)
        kind = support_kinds(a != 0).flatten()
        fitted = torch.bmm(kernels.flatten(0, 1)[:, None], inverses[kind])
        return fitted.reshape(a.shape) * (a != 0)


def _sizes(coefficients: Tensor, basis: Tensor) -> Tensor:
    """How much each coefficient puts into its kernel."""
    return coefficients.abs() * basis.norm(dim=1)
