"""Kernels of low tensor-train ranks, in TDC's order of modes: outputs, kernel, inputs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tdc_deploy.types import Ranks
from tdc_train.projections.tucker import TuckerProjection


@dataclass(frozen=True)
class TensorTrainProjection:
    """Kernels [M, C, kh, kw] whose tensor [M, kh·kw, C] has tensor-train ranks (first, second).

    A train of three cores bounds the ranks of the same two unfoldings as Tucker-2, so the sets are one:
    r_out = first, r_in = second. Its projection is therefore Tucker-2's, which sweeps where the TT-SVD
    (Oseledets, SIAM J. Sci. Comput. 2011) that is usual here stops.
    """

    first: int
    second: int

    def __post_init__(self) -> None:
        self._tucker()

    def describe(self) -> str:
        """The set in a few words."""
        return f"tensor train {self.first}, {self.second}"

    def __call__(self, weight: Tensor) -> Tensor:
        """The nearest kernel found.

        Raises:
            TdcError: the weight is no kernel.
        """
        return self._tucker()(weight)

    def near(self, weight: Tensor, start: Tensor) -> Tensor:
        """The nearest kernel found from the subspaces of `start`."""
        return self._tucker().near(weight, start)

    def _tucker(self) -> TuckerProjection:
        return TuckerProjection(Ranks(self.second, self.first))
