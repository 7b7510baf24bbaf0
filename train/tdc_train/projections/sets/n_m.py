"""N:M sparsity along the input channels, which sparse tensor cores multiply at twice the rate for 2:4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tdc_train.projections.sets.base import (
    FLOAT_BITS,
    ConstraintSet,
    Footprint,
    check_whole,
    footprint_of,
)
from tdc_train.projections.sets.indices import bits_for
from tdc_train.projections.sets.top_k import largest


@dataclass(frozen=True)
class NM(ConstraintSet):
    """At most `n` nonzeros in each `m` consecutive input channels, for each filter and kernel position.

    2:4 is what TensorRT's sparse kernels take: NVIDIA, TensorRT Developer Guide, "Sparsity": for each
    output channel and each spatial pixel of the kernel, every four input channels have at least two zeros,
    with C a multiple of 4. The projection is exact. Bits: n float32 values a group and their places,
    ⌈log2 m⌉ each, as in A. Mishra et al., "Accelerating Sparse Deep Neural Networks" (2021).
    """

    name: ClassVar[str] = "n_m"
    keeps_support: ClassVar[bool] = True

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        check_whole("m", self.m, 2, 64)
        check_whole("n", self.n, 1, self.m - 1)

    def describe(self) -> str:
        """The set in a few words."""
        return f"{self.n}:{self.m}"

    def why_not(self, shape: tuple[int, ...]) -> str:
        """Input channels must come in whole groups."""
        if reason := super().why_not(shape):
            return reason
        return (
            ""
            if shape[1] % self.m == 0
            else f"{shape[1]} input channels are no multiple of {self.m}"
        )

    def footprint(self, member: Tensor) -> Footprint:
        """Of all groups, full or not."""
        stored = member.numel() // self.m * self.n
        return footprint_of(
            member, value_bits=stored * FLOAT_BITS, index_bits=stored * bits_for(self.m)
        )

    def _nearest(self, weight: Tensor) -> Tensor:
        groups = _groups(weight, self.m)
        kept = groups * largest(groups.abs(), self.n)
        return kept.flatten(-2).movedim(-1, 1)


def obeys_n_m(weight: Tensor, n: int = 2, m: int = 4) -> bool:
    """Whether a weight [M, C, ...] is of that sparsity; 2:4 is TensorRT's own check of a kernel."""
    if weight.ndim < 2 or weight.shape[1] % m:
        return False
    return bool((_groups(weight, m).count_nonzero(-1) <= n).all())


def _groups(weight: Tensor, m: int) -> Tensor:
    """[M, ..., C/m, m]"""
    return weight.movedim(1, -1).unflatten(-1, (-1, m))
