"""Matrices of low rank: the truncated SVD is the nearest (Eckart and Young, Psychometrika 1936)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tdc_deploy.errors import TdcError
from tdc_deploy.types import check_number
from tdc_train.projections.subspace import dominant


@dataclass(frozen=True)
class SvdProjection:
    """Weights [M, C] or [M, C, 1, 1] of rank at most `rank`."""

    rank: int

    def __post_init__(self) -> None:
        check_number("rank", self.rank, positive=True)

    def describe(self) -> str:
        """The set in a few words."""
        return f"svd {self.rank}"

    @torch.no_grad()
    def __call__(self, weight: Tensor) -> Tensor:
        """The nearest weight.

        Raises:
            TdcError: the weight is neither a matrix nor a 1x1 kernel.
        """
        if weight.ndim < 2 or weight.shape[:2].numel() != weight.numel():
            raise TdcError(
                f"a weight of shape {tuple(weight.shape)}", expected="[M, C] or [M, C, 1, 1]"
            )
        matrix = weight.detach().flatten(1).to(torch.promote_types(weight.dtype, torch.float32))
        m, c = matrix.shape
        if self.rank >= min(m, c):
            return weight.detach().clone()
        if m <= c:
            left = dominant(matrix, self.rank)
            answer = left @ (left.T @ matrix)
        else:
            right = dominant(matrix.T, self.rank)
            answer = matrix @ right @ right.T
        return answer.reshape(weight.shape).to(weight.dtype)
