"""The output energy that a data-aware decomposition loses at every rank, from one factorisation."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from tdc_deploy.tucker.data_aware import whitened_first
from tdc_deploy.tucker.decompose import Array
from tdc_deploy.tucker.moments import regularised, times_moment

# Of the whitened moment's mean eigenvalue, 1: inputs that hardly vary in some direction would leave it
# positive definite only but for rounding.
ROTATED_RIDGE = 1e-10


def data_aware_errors(
    weight: NDArray[np.floating], second_moment: NDArray[np.floating], ranks_in: Collection[int]
) -> dict[int, Array] | None:
    """Share of the output's energy lost by a kernel [M, C, kh, kw] at each r_in, for every r_out.

    Entry [r_in][r_out] of the result, each [M+1], is `weighted_error` of the chain whose `first` spans
    the leading r_in rows of `whitened_first`, and whose core and `last` are the best for it. That is
    where `data_aware_decompose` starts from: its own error is this one or less. At r_in = C, and so for
    `tucker_out` and `svd`, it is the optimum; at r_out = M it is that of `tucker_in`. It falls with
    either rank. None for a moment of zeros or a kernel of zeros, which say nothing.

    With B = `first` ⊗ I and BΣBᵀ = LLᵀ, ranks r_in keep the leading block of L, and Z = L⁻¹BΣWᵀ keeps
    its leading rows: what the best core keeps is ZᵀZ over these, and the best `last` its strongest
    eigenvectors (Izenman 1975, as in `outer_block`). `second_moment` is as in `data_aware_decompose`.
    """
    w = np.asarray(weight, np.float64)
    moment = regularised(second_moment)
    if moment is None or not w.any():
        return None
    outputs, channels = w.shape[:2]
    explained = _explained(w, moment).reshape(channels, -1, outputs)
    gram = np.zeros((outputs, outputs))
    total = float(np.square(explained).sum())
    errors, done = {}, 0
    for r_in in sorted(set(ranks_in)):
        rows = explained[done:r_in].reshape(-1, outputs)
        gram += rows.T @ rows
        done = r_in
        kept = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0).cumsum()
        errors[r_in] = np.clip(1 - np.concatenate([[0.0], kept]) / total, 0, 1)
    return errors


def _explained(weight: Array, moment: Array) -> Array:
    """Z [C·kh·kw, M] in the whitened kernel's own channel basis, strongest channel first."""
    outputs, channels = weight.shape[:2]
    first = whitened_first(weight, moment)
    crossed = times_moment(weight, moment).reshape(outputs, channels, -1)
    target = np.tensordot(first, crossed, axes=(1, 1)).transpose(0, 2, 1)
    if len(moment) == channels:  # by channel: the basis is orthonormal under Σ already
        return np.asarray(target.reshape(-1, outputs))
    positions = len(moment) // channels
    half = (first @ moment.reshape(channels, -1)).reshape(-1, channels, positions)
    rotated = np.tensordot(first, half, axes=(1, 1))  # [d, c·p, q] for the entries (c, p), (d, q)
    size = channels * positions
    rotated = rotated.transpose(1, 0, 2).reshape(size, size)
    rotated.flat[:: size + 1] += ROTATED_RIDGE
    lower = np.linalg.cholesky(rotated)
    return np.asarray(solve_triangular(lower, target.reshape(size, outputs), lower=True))
