"""Decompose a convolution kernel into a chain of smaller ones, and put it back together.

Tucker-2 (Kim et al., ICLR 2016): W[m,c,y,x] = Σ_ab last[m,a] · core[a,b,y,x] · first[b,c].
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import tensorly
from numpy.typing import NDArray
from tensorly.decomposition import partial_tucker

from tdc_deploy.errors import TdcError
from tdc_deploy.types import Form, Ranks

Array = NDArray[np.float64]

# HOOI converges in a few sweeps from the HOSVD start; each costs one SVD per mode.
HOOI_SWEEPS = 10
HOOI_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Factors:
    """The kernels of a chain; None where the form has no such convolution.

    first [r_in, C], core [r_out, r_in, kh, kw], last [M, r_out]; float64. For `svd` there is no core,
    for `tucker_in` no last, for `tucker_out` no first.
    """

    first: Array | None
    core: Array | None
    last: Array | None


Bases = tuple[Array, Array]
"""Orthonormal bases [M, M] and [C, C] of the output- and input-channel modes, strongest first."""


def mode_bases(weight: NDArray[np.floating]) -> Bases:
    """The bases of the two channel modes of a kernel [M, C, kh, kw].

    They are the eigenvectors of the modes' Gram matrices: the left singular vectors of the unfoldings,
    without the cost of an SVD of a [C, M·kh·kw] matrix.
    """
    w = np.asarray(weight, np.float64)
    m, c = w.shape[:2]
    out_unfolded = w.reshape(m, -1)
    in_unfolded = w.transpose(1, 0, 2, 3).reshape(c, -1)
    bases = []
    for unfolded in (out_unfolded, in_unfolded):
        _, vectors = np.linalg.eigh(unfolded @ unfolded.T)
        bases.append(vectors[:, ::-1])
    return bases[0], bases[1]


def project(weight: NDArray[np.floating], left: Array, right: Array) -> Array:
    """The kernel in the bases `left` [M, a] and `right` [C, b]: a core [a, b, kh, kw]."""
    w = np.asarray(weight, np.float64)
    return np.asarray(np.einsum("mcyx,ma,cb->abyx", w, left, right, optimize=True))


def tucker2(
    weight: NDArray[np.floating], ranks: Ranks, refine: bool = False, bases: Bases | None = None
) -> Factors:
    """Tucker-2 of a kernel [M, C, kh, kw] by HOSVD; with `refine`, followed by HOOI through tensorly.

    `bases` are the kernel's `mode_bases`, if they are known already.

    Source: De Lathauwer et al., "A multilinear singular value decomposition" and "On the best rank-1
    and rank-(R1, ..., RN) approximation" (SIAM J. Matrix Anal. Appl., 2000).

    Raises:
        TdcError: a rank is larger than its channel count.
    """
    _check_ranks(weight.shape, ranks)
    left, right = bases or mode_bases(weight)
    left, right = left[:, : ranks.r_out], right[:, : ranks.r_in]
    core = project(weight, left, right)
    if refine:
        core, left, right = _hooi(np.asarray(weight, np.float64), core, left, right)
    return Factors(first=right.T.copy(), core=core, last=left.copy())


def decompose(
    weight: NDArray[np.floating],
    form: Form,
    ranks: Ranks,
    refine: bool = False,
    bases: Bases | None = None,
) -> Factors:
    """The factors of a kernel [M, C, kh, kw] in one of the forms of `Form` other than dense.

    Raises:
        TdcError: a rank is larger than its channel count, or svd of a kernel larger than 1x1.
    """
    if form == "tucker2":
        return tucker2(weight, ranks, refine, bases)
    _check_ranks(weight.shape, ranks)
    if form == "svd":
        return _svd(weight, ranks.r_in)
    left, right = bases or mode_bases(weight)
    if form == "tucker_in":
        right = right[:, : ranks.r_in]
        return Factors(right.T.copy(), project(weight, np.eye(weight.shape[0]), right), None)
    if form == "tucker_out":
        left = left[:, : ranks.r_out]
        return Factors(None, project(weight, left, np.eye(weight.shape[1])), left.copy())
    raise TdcError(f"form {form!r}", expected="tucker2, tucker_in, tucker_out or svd")


def reconstruct(factors: Factors) -> Array:
    """The kernel [M, C, kh, kw] that a chain computes (without activations between its parts)."""
    core = factors.core
    if core is None:
        if factors.first is None or factors.last is None:
            raise ValueError("a chain without a core needs both first and last")
        return (factors.last @ factors.first)[:, :, None, None]
    left = np.eye(core.shape[0]) if factors.last is None else factors.last
    right = np.eye(core.shape[1]) if factors.first is None else factors.first
    return np.asarray(np.einsum("ma,abyx,bc->mcyx", left, core, right, optimize=True))


def _svd(weight: NDArray[np.floating], rank: int) -> Factors:
    if weight.shape[2:] != (1, 1):
        raise TdcError(
            f"svd of a {weight.shape[2]}x{weight.shape[3]} kernel",
            expected="a 1x1 kernel",
            fix="use tucker2 for larger kernels",
        )
    u, s, vt = np.linalg.svd(np.asarray(weight, np.float64)[:, :, 0, 0], full_matrices=False)
    # The singular values are shared between the sides, so that neither leaves FP16's range first.
    root = np.sqrt(s[:rank])
    return Factors(first=root[:, None] * vt[:rank], core=None, last=u[:, :rank] * root)


def _hooi(weight: Array, core: Array, left: Array, right: Array) -> tuple[Array, Array, Array]:
    if not core.any():
        return core, left, right
    # tensorly warns of ranks above an unfolding's, which HOSVD's start has already dealt with.
    quiet = warnings.catch_warnings()
    with quiet, tensorly.backend_context("numpy", local_threadsafe=True):
        warnings.simplefilter("ignore", UserWarning)
        (core, factors), _ = partial_tucker(
            weight,
            rank=[left.shape[1], right.shape[1]],
            modes=[0, 1],
            init=(core, [left, right]),
            n_iter_max=HOOI_SWEEPS,
            tol=HOOI_TOLERANCE,
        )
    return np.asarray(core), np.asarray(factors[0]), np.asarray(factors[1])


def _check_ranks(shape: tuple[int, ...], ranks: Ranks) -> None:
    m, c = shape[:2]
    if ranks.r_in > c or ranks.r_out > m:
        raise TdcError(
            f"ranks r_in {ranks.r_in}, r_out {ranks.r_out} for a kernel of {c} to {m} channels",
            expected=f"r_in at most {c} and r_out at most {m}",
        )
