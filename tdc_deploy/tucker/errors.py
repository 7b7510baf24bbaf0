"""The error of every rank at once, from one eigen-decomposition per mode."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.tucker.decompose import Bases, mode_bases, project

Array = NDArray[np.float64]


def tucker2_errors(weight: NDArray[np.floating], bases: Bases | None = None) -> Array:
    """Energy lost by HOSVD at every rank pair of a kernel [M, C, kh, kw].

    Entry [r_out, r_in] of the result [M+1, C+1] is ‖W−W̃‖²/‖W‖² with those ranks; row and column 0
    are 1. HOSVD is an orthogonal projection, so the energy kept is that of the leading block of the
    kernel in its own bases, and one two-dimensional cumulative sum holds them all. Column C is
    `tucker_out`'s error, row M `tucker_in`'s.
    """
    left, right = bases or mode_bases(weight)
    energy = np.square(project(weight, left, right)).sum((2, 3))
    kept = np.zeros((energy.shape[0] + 1, energy.shape[1] + 1))
    kept[1:, 1:] = energy.cumsum(0).cumsum(1)
    return _lost(kept)


def svd_errors(weight: NDArray[np.floating]) -> Array:
    """Energy lost by a truncated SVD of a 1x1 kernel [M, C, 1, 1]; entry [r] is for rank r.

    Source: Eckart and Young, Psychometrika 1936.
    """
    values = np.linalg.svd(np.asarray(weight, np.float64)[:, :, 0, 0], compute_uv=False)
    return _lost(np.concatenate([[0.0], np.square(values).cumsum()]))


def _lost(kept: Array) -> Array:
    total = kept.flat[-1]
    if total == 0:
        return np.zeros_like(kept)
    return np.asarray(np.clip(1 - kept / total, 0, 1))
