"""Kernels of low Tucker-2 ranks: the nearest one by alternating least squares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tdc_deploy.errors import TdcError
from tdc_deploy.types import Ranks
from tdc_train.projections.subspace import dominant, improved, range_of

# A sweep that takes less than this share off the squared distance is the last. What is left to gain is then
# a few times as much, where a hundredth of the distance, two of its square, may be lost. A warm start is
# one of many, each of which goes on from the last.
TOLERANCE = 5e-4
WARM_TOLERANCE = 1e-2
SWEEPS = 20

# Steps of subspace iteration on each whole unfolding before the first sweep. From nothing, two come near
# HOSVD. From the last projection one is enough: a sweep sees only what the other basis lets through, and
# could not leave a start that misses a part of the kernel.
HOSVD_STEPS = 2
WARM_STEPS = 1

# Squared distances below this share of the kernel's energy are rounding.
ROUNDING = 1e-7


@dataclass(frozen=True)
class TuckerProjection:
    """Kernels [M, C, kh, kw] whose unfoldings have rank at most r_out (outputs) and r_in (inputs).

    A rank at or above its channels is no constraint; with one such the answer is the truncated SVD of
    the other unfolding, exact. With two there is no closed form: HOSVD, then HOOI until it stands still
    (De Lathauwer et al., SIAM J. Matrix Anal. Appl. 2000), with subspace iterations for the SVDs.
    """

    ranks: Ranks

    def describe(self) -> str:
        """The set in a few words."""
        return f"tucker2 {self.ranks.r_in}→{self.ranks.r_out}"

    @torch.no_grad()
    def __call__(self, weight: Tensor) -> Tensor:
        """The nearest kernel found from HOSVD.

        Raises:
            TdcError: the weight is no kernel.
        """
        return self._projected(weight, None)

    @torch.no_grad()
    def near(self, weight: Tensor, start: Tensor) -> Tensor:
        """The nearest kernel found from the subspaces of `start`.

        Raises:
            TdcError: the weight is no kernel.
        """
        return self._projected(weight, start)

    def _projected(self, weight: Tensor, start: Tensor | None) -> Tensor:
        if weight.ndim != 4:
            raise TdcError(f"a weight of shape {tuple(weight.shape)}", expected="[M, C, kh, kw]")
        m, c = weight.shape[:2]
        r_out, r_in = min(self.ranks.r_out, m), min(self.ranks.r_in, c)
        kernel = _channels_last(weight)
        if r_out == m and r_in == c:
            return weight.detach().clone()
        if r_out == m or r_in == c:
            answer = _one_sided(kernel, r_out, r_in)
        else:
            near = None if start is None else _channels_last(start)
            answer = _two_sided(kernel, r_out, r_in, near)
        shape = (m, *weight.shape[2:], c)
        return answer.reshape(shape).permute(0, 3, 1, 2).to(weight.dtype).contiguous()


def _channels_last(weight: Tensor) -> Tensor:
    """[M, kh·kw, C], in float32 or float64: each unfolding is then a view."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    kernel = weight.detach().to(dtype).permute(0, 2, 3, 1)
    return kernel.reshape(kernel.shape[0], -1, kernel.shape[3])


def _one_sided(kernel: Tensor, r_out: int, r_in: int) -> Tensor:
    m, _, c = kernel.shape
    if r_out == m:
        right = dominant(kernel.reshape(-1, c).T, r_in)
        return kernel.reshape(-1, c) @ right @ right.T
    left = dominant(kernel.reshape(m, -1), r_out)
    return left @ (left.T @ kernel.reshape(m, -1))


def _two_sided(kernel: Tensor, r_out: int, r_in: int, near: Tensor | None) -> Tensor:
    m, _, c = kernel.shape
    start = kernel if near is None else near
    left = range_of(start.reshape(m, -1), r_out)
    right = range_of(start.reshape(-1, c).T, r_in)
    for _ in range(HOSVD_STEPS if near is None else WARM_STEPS):
        left = improved(kernel.reshape(m, -1), left)
        right = improved(kernel.reshape(-1, c).T, right)
    tolerance = TOLERANCE if near is None else WARM_TOLERANCE
    left, right = _alternate(kernel, left, right, tolerance)
    inside = kernel.reshape(-1, c) @ right
    core = left.T @ inside.reshape(m, -1)
    return (left @ core).reshape(-1, right.shape[1]) @ right.T


def _alternate(
    kernel: Tensor, left: Tensor, right: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """HOOI: each basis in turn the best for the other one, until the distance stands still."""
    m, _, c = kernel.shape
    total = _energy(kernel)
    for _ in range(SWEEPS):
        inside = (kernel.reshape(-1, c) @ right).reshape(m, -1)
        before = total - _energy(left.T @ inside)
        left = improved(inside, left)
        reduced = (left.T @ kernel.reshape(m, -1)).reshape(-1, c)
        right = improved(reduced.T, right)
        after = total - _energy(reduced @ right)
        if before - after <= max(tolerance * after, ROUNDING * total):
            break
    return left, right


def _energy(tensor: Tensor) -> float:
    return float(tensor.square().sum(dtype=torch.float64))
