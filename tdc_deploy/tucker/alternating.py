"""Alternating least squares for a Tucker chain under a weighted norm ‖(W−W̃)Σ^½‖.

Two blocks, each of which can only lower the error:

- `last` and `core` together, given `first`: a reduced-rank regression, in closed form;
- `first`, given them: linear least squares in r_in·C unknowns. Its matrix, Σ_pq Q_pq ⊗ Σ_pq over pairs of
  kernel positions, is no Kronecker product and for 512 channels would take 77 GB. It is therefore never
  formed: conjugate gradients, preconditioned by the nearest thing that is a Kronecker product.

Kernels are [M, P, C] here, P = kh·kw positions, and moments [P, C, P, C]: with the channel last, every
large contraction is one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# `first` is solved again in every sweep, and each step lowers the error.
SOLVER_STEPS = 10
SOLVER_TOLERANCE = 1e-3

# Of the mean eigenvalue: lets the preconditioner of a core without full rank be inverted.
PRECONDITIONER_RIDGE = 1e-10


@dataclass(frozen=True, eq=False)
class Problem:
    """A kernel [M, P, C] and a symmetric, positive definite moment [P, C, P, C].

    `r_out` None: the chain has no `last`, and `core` writes all M channels.
    """

    weight: Array
    moment: Array
    r_out: int | None

    @cached_property
    def target(self) -> Array:
        """WΣ [M, P, C]."""
        return self.times_moment(self.weight)

    @cached_property
    def energy(self) -> float:
        """‖WΣ^½‖²."""
        return float(np.vdot(self.weight, self.target))

    @cached_property
    def channel_inverse(self) -> Array:
        """Inverse [C, C] of the moment's mean over the positions."""
        mean = np.einsum("pcpd->cd", self.moment) / self.moment.shape[0]
        return np.asarray(np.linalg.inv(mean))

    @cached_property
    def single(self) -> NDArray[np.float32]:
        """The moment in float32."""
        return self.moment.astype(np.float32)

    def times_moment(self, rows: Array) -> Array:
        """Rows [n, P, C] times the moment."""
        return _product(rows, self.moment)

    def about_times_moment(self, rows: Array) -> Array:
        """The same in float32, in half the time: off by some 1e-7 of the moment's and the rows' norms."""
        return _product(rows.astype(np.float32), self.single).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Chain:
    """first [r_in, C] with orthonormal rows, core [a, P, r_in], last [M, a] or None, and ‖(W−W̃)Σ^½‖²."""

    first: Array
    core: Array
    last: Array | None
    squared_error: float


def alternate(problem: Problem, first: Array) -> Iterator[Chain]:
    """The best chain on the row space of `first` [r_in, C], then one after each sweep, without end."""
    chain = outer_block(problem, first)
    while True:
        yield chain
        chain = outer_block(problem, first_block(problem, chain))


def outer_block(problem: Problem, first: Array) -> Chain:
    """The best `last` and `core` on the row space of `first`.

    With B = I ⊗ first and S = BΣBᵀ, the best full-rank core is K = WΣBᵀS⁻¹; the error of any other core
    adds ‖(K−K̃)S^½‖², so that `last` spans the leading eigenvectors of KSKᵀ.

    Source: Izenman, "Reduced-rank regression for the multivariate linear model" (J. Multivariate Analysis
    1975).
    """
    first = np.linalg.qr(first.T)[0].T
    positions, channels = problem.weight.shape[1:]
    half = first @ problem.moment.reshape(positions, channels, -1)
    reduced = half.reshape(-1, channels) @ first.T
    size = positions * len(first)
    crossed = (problem.target @ first.T).reshape(-1, size)
    full = np.linalg.solve(reduced.reshape(size, size), crossed.T).T
    last = None
    core = full
    if problem.r_out is not None:
        last = leading(full @ crossed.T, problem.r_out)
        core, crossed = last.T @ full, last.T @ crossed
    kept = float(np.vdot(core, crossed))
    return Chain(first, core.reshape(-1, positions, len(first)), last, problem.energy - kept)


def first_block(problem: Problem, chain: Chain) -> Array:
    """A `first` [r_in, C] that is better for the chain's `core` and `last`.

    Source: the preconditioned conjugate gradient method (Saad, "Iterative Methods for Sparse Linear
    Systems", 2003, algorithm 9.1).
    """
    core = chain.core
    target = problem.target
    if chain.last is not None:
        target = np.tensordot(chain.last, target, axes=(0, 0))
    flat = core.reshape(-1, core.shape[2])
    gram = flat.T @ flat
    gram.flat[:: len(gram) + 1] += PRECONDITIONER_RIDGE * gram.trace() / len(gram)
    core_inverse = np.linalg.inv(gram)

    def normal(first: Array) -> Array:
        return backward(problem.times_moment(core @ first))

    def about_normal(first: Array) -> Array:
        return backward(problem.about_times_moment(core @ first))

    def backward(rows: Array) -> Array:
        return np.asarray(flat.T @ rows.reshape(len(flat), -1))

    def precondition(residual: Array) -> Array:
        return core_inverse @ residual @ problem.channel_inverse

    return conjugate_gradients(normal, about_normal, backward(target), chain.first, precondition)


def conjugate_gradients(
    normal: Callable[[Array], Array],
    about_normal: Callable[[Array], Array],
    target: Array,
    start: Array,
    precondition: Callable[[Array], Array],
) -> Array:
    """A solution of normal(x) = target, from `start`; each step lowers the quadratic form.

    `about_normal` may round as float32 does: the residual that the steps start from is exact, they end when
    it is a thousandth, and what comes of it is kept only if it is better.
    """
    x = start
    residual = target - normal(x)
    conditioned = precondition(residual)
    direction = conditioned
    norm = initial = float(np.vdot(residual, conditioned))
    for _ in range(SOLVER_STEPS):
        if not norm > SOLVER_TOLERANCE**2 * initial:
            break
        image = about_normal(direction)
        curvature = float(np.vdot(direction, image))
        if not curvature > 0:
            break
        step = norm / curvature
        x = x + step * direction
        residual = residual - step * image
        conditioned = precondition(residual)
        norm, previous = float(np.vdot(residual, conditioned)), norm
        direction = conditioned + norm / previous * direction
    return x


def _product(rows: NDArray[Any], moment: NDArray[Any]) -> NDArray[Any]:
    size = rows.shape[1] * rows.shape[2]
    product = rows.reshape(-1, size) @ moment.reshape(size, size)
    return np.asarray(product.reshape(rows.shape))


def leading(gram: Array, rank: int) -> Array:
    """The eigenvectors [n, rank] of a symmetric matrix [n, n] with the largest eigenvalues."""
    return np.asarray(np.linalg.eigh((gram + gram.T) / 2)[1][:, : -rank - 1 : -1])
