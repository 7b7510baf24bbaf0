"""Second moments of input patches: what one must be, and the arithmetic with it.

Patches and kernels are flattened in the order [C, kh, kw], as torch's `unfold` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError

Array = NDArray[np.float64]

# Inputs that never take some direction leave the kernel undetermined there. This much of the mean
# eigenvalue, added to all, settles it by the plain norm, and keeps the condition number below 1e8·C·kh·kw.
RIDGE = 1e-8


def check_moment(shape: Sequence[int], second_moment: NDArray[np.floating]) -> None:
    """Raise TdcError unless `second_moment` can be one of the input patches of a kernel of this shape:
    [C·kh·kw, C·kh·kw], or by channel [C, C].
    """
    moment = np.asarray(second_moment)
    channels, patch = shape[1], math.prod(shape[1:])
    if moment.shape not in ((patch, patch), (channels, channels)):
        raise TdcError(
            f"a second moment of shape {moment.shape} for a kernel of shape {tuple(shape)}",
            expected=f"({patch}, {patch}), or by channel ({channels}, {channels})",
        )
    # Row by row, without a second matrix; np.max, unlike max, is NaN if any value is, or infinite.
    differences = [np.abs(row - column).max() for row, column in zip(moment, moment.T, strict=True)]
    asymmetry = float(np.max(differences))
    if not (asymmetry <= RIDGE * float(moment.trace()) and moment.diagonal().min() >= 0):
        raise TdcError(
            "a second moment that is not symmetric, not finite, or negative on its diagonal",
            expected="E[x·xᵀ] of input patches x",
            fix="look for NaN or infinity in the inputs that it was measured on",
        )


def regularised(second_moment: NDArray[np.floating]) -> Array | None:
    """A positive definite copy, float64; None for a moment of zeros, which says nothing."""
    moment = np.array(second_moment, np.float64)
    mean = float(moment.trace()) / len(moment)
    if mean == 0:
        return None
    moment.flat[:: len(moment) + 1] += RIDGE * mean
    return moment


def times_moment(weight: Array, moment: Array) -> Array:
    """Kernels [n, C, kh, kw] times Σ, or Σ by channel."""
    by_channel = weight.reshape(len(weight), len(moment), -1)
    return np.asarray(np.einsum("mcp,cd->mdp", by_channel, moment, optimize=True)).reshape(
        weight.shape
    )


def channel_mean(moment: Array, channels: int) -> Array:
    """The moment [C, C] of the channels, the mean over the kernel's positions."""
    positions = len(moment) // channels
    blocks = moment.reshape(channels, positions, channels, positions)
    return np.asarray(np.einsum("cpdp->cd", blocks) / positions)


def roots(moment: Array) -> tuple[Array, Array]:
    """Σ^½ and Σ^-½ of a positive definite Σ."""
    values, vectors = np.linalg.eigh(moment)
    root = np.sqrt(values)
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T
