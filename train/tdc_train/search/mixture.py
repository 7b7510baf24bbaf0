"""All candidates of a layer as one kernel.

HALOC's supernet holds a Tucker chain for each candidate of each layer and adds their outputs. Here a
layer's candidates share its weights, and their mixture is one convolution: with the kernel's HOSVD bases
U, V, the candidate of ranks (r_in, r_out) is U (mask ∘ Uᵀ·W·V) Vᵀ, mask being 1 in the leading r_out x
r_in block and 0 elsewhere. A convolution is linear in its kernel, so Σ p_i · output_i is the output of the
kernel with mask Σ p_i · mask_i, and a search costs little more than training. tucker_in, tucker_out and
dense are the blocks of full width; the SVD of a 1x1 kernel is the block of (r, r) in its singular vectors.

What is trained is the dense kernel W itself. Rotations keep lengths and angles, so a step of SGD on it is
that on the core in the rotated basis, and the network keeps its parameters' names and checkpoints their
form. The bases are W's at the start of each epoch, and need no state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tdc_deploy.tucker import mode_bases
from tdc_deploy.types import Candidate


class MixedKernel:
    """A layer's kernel [M, C, kh, kw] under a mixture of candidates.

    Args:
        weight: the dense kernel; read, and written by `truncate` only.
        candidates: what is mixed, in the order of the shares.
    """

    def __init__(self, weight: nn.Parameter, candidates: Sequence[Candidate]) -> None:
        self.weight = weight
        self.candidates = tuple(candidates)
        m, c = weight.shape[:2]
        ranks = [(x.ranks.r_out, x.ranks.r_in) if x.ranks else (m, c) for x in candidates]
        # float64 [candidates, M] and [candidates, C].
        self._out = _leading([r_out for r_out, _ in ranks], m, weight)
        self._in = _leading([r_in for _, r_in in ranks], c, weight)
        self._left = self._right = weight.new_zeros(0)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the bases of the kernel as it is."""
        values = self.weight.detach().cpu().double().numpy()
        if values.shape[2:] == (1, 1):
            # Singular vectors come in pairs; those of two eigen-decompositions may not.
            left, _, right = np.linalg.svd(values[:, :, 0, 0])
            bases = left, right.T
        else:
            bases = mode_bases(values)
        self._left, self._right = (
            torch.from_numpy(np.ascontiguousarray(basis)).to(self.weight) for basis in bases
        )

    def mixed(self, shares: Tensor, weight: Tensor | None = None) -> Tensor:
        """The kernel whose output is the mixture of the candidates' outputs; differentiable.

        Args:
            shares: [candidates], summing to 1; one of them alone gives that candidate.
            weight: another kernel in place of the layer's own, such as that without its gradient.
        """
        w = self.weight if weight is None else weight
        mask = torch.einsum("i,im,ic->mc", shares.double(), self._out, self._in)
        # What is taken away, so that dense alone is the kernel to the last bit.
        lost = (1 - mask).to(w)[:, :, None, None] * _rotated(w, self._left.T, self._right.T)
        return w - _rotated(lost, self._left, self._right)

    @torch.no_grad()
    def truncate(self, index: int) -> None:
        """Write the candidate's kernel into the layer, which it then decomposes without loss."""
        shares = torch.zeros(len(self.candidates), dtype=torch.float64, device=self.weight.device)
        shares[index] = 1
        self.weight.copy_(self.mixed(shares))


def _rotated(kernel: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Both matrices on the channel modes: left · kernel · rightᵀ."""
    m, c, *size = kernel.shape
    once = (left @ kernel.reshape(m, -1)).reshape(m, c, -1)
    return torch.matmul(right, once).reshape(m, c, *size)


def _leading(ranks: Sequence[int], channels: int, like: Tensor) -> Tensor:
    """Rows of ones up to each rank, zeros behind; float64 [ranks, channels]."""
    columns = torch.arange(channels, device=like.device)
    limits = torch.tensor(ranks, device=like.device)
    return (columns < limits[:, None]).double()
