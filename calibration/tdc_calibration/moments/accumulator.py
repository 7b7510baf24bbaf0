"""What all ways of summing second moments share.

Products are of float32. They are summed in float32 over some thousand positions or some images at a time
(BLAS), and these partial sums in float64. With u = 2⁻²⁴ and n products at a time, an entry is off by at
most n·u·E[|x_i|·|x_j|] ≤ n·u·√(M_ii·M_jj) (N. Higham, Accuracy and Stability of Numerical Algorithms,
2002, section 3.1); Fourier transforms add a multiple of u·log₂(pixels) to that in the norm (section
24.1), with the largest M_ii of a channel's positions in place of M_ii. As measured, entries are off by
7e-8·√(M_ii·M_jj), root mean square, and by less than 1e-6: thousands of times less than what another draw
of 512 images changes. In float64 it would take twice the time.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Positions at a time: as many as keep adding up the partial sums below a few percent of the work.
POSITIONS = 2500

# Rows and columns of a matrix that fit into a cache.
BLOCK = 128


class Accumulator(Protocol):
    """Sums the second moment of one layer's input patches over batches."""

    @property
    def size(self) -> int:
        """Rows of the moment."""
        ...

    @property
    def macs(self) -> int:
        """Multiplications for one image."""
        ...

    @property
    def bytes(self) -> int:
        """Memory that it holds, with its result; each addition may take as much again for a moment."""
        ...

    @property
    def by_channel(self) -> bool:
        """True if the moment is [C, C], averaged over the kernel's positions."""
        ...

    def add(self, x: NDArray[Any]) -> None:
        """Add images [n, C, H, W]."""
        ...

    def moment(self) -> Array:
        """E[x·xᵀ] of all that was added, float64, symmetric."""
        ...


def mirror(lower: Array) -> None:
    """Fill the upper triangle of a square matrix from its lower one, in place."""
    for start in range(0, len(lower), BLOCK):
        stop = start + BLOCK
        square = lower[start:stop, start:stop]
        square[:] = np.tril(square) + np.tril(square, -1).T
        lower[start:stop, stop:] = lower[stop:, start:stop].T
