"""Kernels from a small shared basis: the factors that are fitted, whatever the coefficients may be."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tdc_deploy.errors import TdcError
from tdc_train.projections.sets.base import ConstraintSet, check_whole

SWEEPS = 200
# A sweep that gains less of the squared distance is the last.
GAIN = 1e-3
# Nearer to the set than this, as a share of the energy, sweeps end later: a member shall be found again.
NEAR, GAIN_NEAR = 0.05, 1e-6
# Squared, and of the weight's energy: a distance of rounding only.
NOTHING = 1e-13
# More kernels would not be fewer than the places of a 3x3 one.
MOST = 9

Factors = tuple[Tensor, Tensor]
Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class KernelBasis(ConstraintSet):
    """W [M·C, kh·kw] = A·B with `basis` shared kernels B, and A of a kind that subclasses say.

    The SVD of that rank gives B; A is brought to its kind, and B is refitted by least squares. From there
    A of its pattern, B, and the pattern are fitted in turns as long as that gains. Prepared sets begin
    with the trained weights' basis, `start`, and not each time with an SVD of their own: that would turn
    a member's basis, and its coefficients would be of that kind no more. Members near the start are found
    again but for rare ones of a few coefficients; the nearest of all members is not promised.
    """

    keeps_values: ClassVar[bool] = True

    basis: int = 5
    start: Rows = ()

    def __post_init__(self) -> None:
        check_whole("basis", self.basis, 1, MOST)
        rows = [len(row) if isinstance(row, tuple) else 0 for row in self.start]
        if rows and (len(rows) != self.basis or len(set(rows)) > 1 or not rows[0]):
            raise TdcError(
                f"start is {self.start!r}",
                expected=f"{self.basis} kernels of a basis, each as a list of numbers",
                fix="leave it out: it is taken from the trained weights",
            )

    def why_not(self, shape: tuple[int, ...]) -> str:
        """A basis must be smaller than a kernel."""
        if len(shape) != 4 or shape[2] * shape[3] <= self.basis:
            return f"its kernels have no basis of {self.basis} that is smaller"
        if self.start and len(self.start[0]) != shape[2] * shape[3]:
            return f"the basis to begin with has kernels of {len(self.start[0])} places"
        return ""

    def prepared(self, weights: Mapping[str, Tensor]) -> dict[str, ConstraintSet]:
        """Each with its trained weight's basis to begin with."""
        if self.start:
            return dict.fromkeys(weights, self)
        found: dict[str, ConstraintSet] = {}
        for name, weight in weights.items():
            rows = leading_basis(weight.detach().double().flatten(2), self.basis)
            found[name] = replace(self, start=tuple(map(tuple, rows.tolist())))
        return found

    def factors(self, weight: Tensor) -> Factors:
        """A [M, C, basis] and B [basis, kh, kw] of the member nearest to a weight, float64."""
        a, b = self._fitted(weight.detach().double().flatten(2))
        return a, b.unflatten(1, weight.shape[2:])

    def _nearest(self, weight: Tensor) -> Tensor:
        a, b = self._fitted(weight.double().flatten(2))
        return (a @ b).to(weight.dtype)

    def _fitted(self, kernels: Tensor) -> Factors:
        """A [M, C, d], B [d, k²] for kernels [M, C, k²]: the best of the sweeps."""
        basis = kernels.new_tensor(self.start) if self.start else leading_basis(kernels, self.basis)
        energy = float(kernels.square().sum())
        best = (kernels.new_zeros(*kernels.shape[:2], len(basis)), basis)
        error = energy
        for _ in range(SWEEPS):
            a = self._coefficients(kernels, basis)
            basis = refitted_basis(kernels, a, basis)
            a = self._refitted(kernels, a, basis)
            left = float((kernels - a @ basis).square().sum())
            gained = error - left
            if gained > 0:
                best, error = (a, basis), left
            enough = GAIN if left > NEAR * energy else GAIN_NEAR
            if gained <= enough * left or error <= NOTHING * energy:
                break
        return best

    @abstractmethod
    def _coefficients(self, kernels: Tensor, basis: Tensor) -> Tensor:
        """Coefficients of their kind [M, C, d] near the least-squares ones."""

    @abstractmethod
    def _refitted(self, kernels: Tensor, a: Tensor, basis: Tensor) -> Tensor:
        """The best coefficients of the pattern that `a` has."""


def leading_basis(kernels: Tensor, count: int) -> Tensor:
    """The leading right singular vectors [d, k²] of kernels [M, C, k²], float64, each as long as the root
    mean square of its coefficients, so that these are alike in size.
    """
    rows = kernels.flatten(0, 1)
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    lengths = values[-count:].clamp_min(float(values[-1]) * 1e-12).sqrt()
    return (vectors[:, -count:] * lengths).T.flip(0)


def refitted_basis(kernels: Tensor, a: Tensor, basis: Tensor) -> Tensor:
    """B [d, k²] by least squares; a kernel without a coefficient stays."""
    columns, rows = a.flatten(0, 1), kernels.flatten(0, 1)
    fitted = torch.linalg.pinv(columns.T @ columns, hermitian=True) @ (columns.T @ rows)
    return torch.where(columns.any(0)[:, None], fitted, basis)
