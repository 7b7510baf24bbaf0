"""Decompose a kernel so that the layer's output changes least on the inputs that it really sees.

A plain decomposition minimises ‖W−W̃‖ and treats all inputs alike. With Σ = E[x·xᵀ] the second moment of
the layer's input patches, E‖(W−W̃)x‖² = tr((W−W̃)Σ(W−W̃)ᵀ) = ‖(W−W̃)Σ^½‖², and that is minimised here.

Patches and kernels are flattened in the order [C, kh, kw], as torch's `unfold` does.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.tucker.alternating import Chain, Problem, alternate, leading
from tdc_deploy.tucker.decompose import Array, Factors, decompose, mode_bases, reconstruct
from tdc_deploy.tucker.moments import channel_mean, check_moment, regularised, roots, times_moment
from tdc_deploy.types import Form, Ranks

SWEEPS = 20
TOLERANCE = 1e-3
"""The sweeps end when one lowers the squared error by less than this share."""


def data_aware_decompose(
    weight: NDArray[np.floating],
    second_moment: NDArray[np.floating],
    form: Form,
    ranks: Ranks,
    sweeps: int = SWEEPS,
    tolerance: float = TOLERANCE,
) -> Factors:
    """The factors of a kernel [M, C, kh, kw] in `form` that minimise ‖(W−W̃)Σ^½‖.

    `second_moment` is Σ [C·kh·kw, C·kh·kw], or by channel [C, C]: the same at every kernel position and
    none between positions. A Σ of zeros says nothing, and the plain decomposition is returned.

    `svd` and `tucker_out` (and by channel, `tucker_in`) are the optimum. The others descend from the
    better of two starts, HOSVD's and that of the kernel whitened by channel: never worse than HOSVD.

    Source: alternating least squares for Tucker models (Kroonenberg and de Leeuw, Psychometrika 1980),
    here in the norm that the inputs give.

    Raises:
        TdcError: ranks or a form that `decompose` refuses, or no second moment of such a kernel.
    """
    plain = decompose(weight, form, ranks)
    w = np.asarray(weight, np.float64)
    check_moment(w.shape, second_moment)
    moment = regularised(second_moment)
    if moment is None or not w.any():
        return plain
    if form in ("svd", "tucker_out"):
        return _output_side(w, moment, plain)
    if len(moment) < math.prod(w.shape[1:]):
        return _by_channel(w, moment, form, ranks, plain)
    return _alternating(w, moment, plain, sweeps, tolerance)


def data_aware_tucker2(
    weight: NDArray[np.floating], second_moment: NDArray[np.floating], ranks: Ranks
) -> Factors:
    """`data_aware_decompose` to Tucker-2; the rows of `first` and columns of `last` are orthonormal.

    Raises:
        TdcError: as `data_aware_decompose`.
    """
    return data_aware_decompose(weight, second_moment, "tucker2", ranks)


def weighted_error(
    weight: NDArray[np.floating], second_moment: NDArray[np.floating], factors: Factors
) -> float:
    """‖(W−W̃)Σ^½‖² / ‖WΣ^½‖², the share of the output's energy that is lost; 0 if there is none.

    `second_moment` is as in `data_aware_decompose`, and used as it is.
    """
    w = np.asarray(weight, np.float64)
    moment = np.asarray(second_moment, np.float64)
    lost = w - reconstruct(factors)
    total = float(np.vdot(w, times_moment(w, moment)))
    if not total > 0:
        return 0.0
    # Of what is lost nowhere, rounding may leave less than nothing.
    return float(np.maximum(np.vdot(lost, times_moment(lost, moment)) / total, 0))


def whitened_first(weight: Array, moment: Array) -> Array:
    """`first` [C, C] of the kernel whitened by the mean moment of its channels, strongest row first.

    `moment` is positive definite. The leading rows serve for any lower rank.
    """
    root, inverse = roots(channel_mean(moment, weight.shape[1]))
    white = np.asarray(np.einsum("mcyx,cd->mdyx", weight, root, optimize=True))
    return np.asarray(mode_bases(white)[1].T @ inverse)


def _output_side(weight: Array, moment: Array, plain: Factors) -> Factors:
    """Only the rank of the [M, C·kh·kw] matrix is bounded: its whitened SVD, by Eckart and Young."""
    assert plain.last is not None
    gram = np.tensordot(times_moment(weight, moment), weight, axes=([1, 2, 3], [1, 2, 3]))
    last = leading(gram, plain.last.shape[1])
    core = np.tensordot(last, weight, axes=(0, 0))
    if plain.core is not None:
        return Factors(None, core, last)
    # As in the plain SVD, the scale is shared between the sides.
    first = core[:, :, 0, 0]
    root = np.sqrt(np.linalg.norm(first, axis=1))
    scale = np.where(root > 0, root, 1.0)
    return Factors(first / scale[:, None], None, last * scale)


def _by_channel(weight: Array, moment: Array, form: Form, ranks: Ranks, plain: Factors) -> Factors:
    """Whitening the input channels leaves a plain decomposition."""
    assert plain.first is not None
    root, inverse = roots(moment)
    white = np.einsum("mcyx,cd->mdyx", weight, root, optimize=True)
    starts = [mode_bases(white)]
    if plain.last is not None:
        starts.append((plain.last, np.linalg.qr((plain.first @ root).T)[0]))
    found = []
    for bases in starts:
        factors = decompose(white, form, ranks, refine=True, bases=bases)
        assert factors.first is not None and factors.core is not None
        rows, mixing = np.linalg.qr((factors.first @ inverse).T)
        core = np.einsum("abyx,cb->acyx", factors.core, mixing, optimize=True)
        found.append(Factors(rows.T, core, factors.last))
    return min(found, key=lambda factors: weighted_error(weight, moment, factors))


def _alternating(
    weight: Array, moment: Array, plain: Factors, sweeps: int, tolerance: float
) -> Factors:
    assert plain.first is not None
    m, c, kh, kw = weight.shape
    positions = kh * kw
    problem = Problem(
        weight.reshape(m, c, positions).swapaxes(1, 2).copy(),
        moment.reshape(c, positions, c, positions).transpose(1, 0, 3, 2).copy(),
        None if plain.last is None else plain.last.shape[1],
    )
    starts = (plain.first, whitened_first(weight, moment)[: len(plain.first)])
    runs = [alternate(problem, first) for first in starts]
    heads = [next(run) for run in runs]
    best = min(range(len(runs)), key=lambda i: heads[i].squared_error)
    chain = heads[best]
    for _ in range(sweeps):
        improved = next(runs[best])
        if not improved.squared_error < chain.squared_error:
            break
        gain = 1 - improved.squared_error / chain.squared_error
        chain = improved
        if gain < tolerance:
            break
    return _factors(chain, (kh, kw))


def _factors(chain: Chain, kernel: tuple[int, int]) -> Factors:
    outputs, _, r_in = chain.core.shape
    core = chain.core.transpose(0, 2, 1).reshape(outputs, r_in, *kernel)
    return Factors(chain.first, core, chain.last)
