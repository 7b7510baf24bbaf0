"""Dominant subspaces of wide matrices: exactly, or from a subspace that is nearly it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Random directions beside the basis, so that an iteration finds what the basis is orthogonal to.
OVERSAMPLING = 8


def dominant(matrix: Tensor, rank: int) -> Tensor:
    """Orthonormal basis [n, rank] of the leading left singular subspace of `matrix` [n, p].

    float32: the eigenvectors of the Gram matrix in float64, whose squares cost half the digits and
    leave float32's. float64: the SVD. A basis has at most min(n, p) columns.
    """
    with _one_thread():
        if matrix.dtype == torch.float64:
            return torch.linalg.svd(matrix, full_matrices=False)[0][:, :rank]
        wide = matrix.double()
        vectors = torch.linalg.eigh(wide @ wide.T)[1]
        return vectors[:, -rank:].flip(1).to(matrix.dtype)


def improved(matrix: Tensor, basis: Tensor) -> Tensor:
    """A better basis [n, r] of the leading left subspace of `matrix` [n, p]: one step of randomised
    subspace iteration with a Rayleigh-Ritz choice (Halko, Martinsson, Tropp, SIAM Review 2011).

    It keeps at least as much of the matrix's energy as `basis` does.
    """
    rank = basis.shape[1]
    if rank + OVERSAMPLING >= matrix.shape[0]:
        return dominant(matrix, rank)
    wide = torch.cat([basis, gaussian(matrix.shape[0], OVERSAMPLING, matrix)], 1)
    span = orthonormal(matrix @ (matrix.T @ wide))
    return span @ dominant(span.T @ matrix, rank)


def range_of(matrix: Tensor, rank: int) -> Tensor:
    """Orthonormal basis [n, rank] that holds the range of `matrix` [n, p], whose rank is at most that."""
    return orthonormal(matrix @ gaussian(matrix.shape[1], rank, matrix))


def orthonormal(columns: Tensor) -> Tensor:
    """Orthonormal basis of the columns' span."""
    with _one_thread():
        return torch.linalg.qr(columns)[0]


def gaussian(rows: int, columns: int, like: Tensor) -> Tensor:
    """The same normal numbers in every call, so that a run can be repeated and resumed."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, columns, generator=generator).to(like)


@contextmanager
def _one_thread() -> Iterator[None]:
    """LAPACK's many short parallel steps gain nothing at these sizes, and where another process is busy
    each waits for a core: an eigenproblem of 512 then takes seconds instead of 0.15.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
