"""Second moments that stay positive semidefinite, which rounding may take from them."""

from __future__ import annotations

import numpy as np
from scipy.linalg import get_lapack_funcs

from tdc_calibration.moments.accumulator import Array

# Decomposing adds 1e-8 of the mean eigenvalue to all: a lack of half of that does no harm.
HARMLESS = 5e-9

# The first that is added, as a share of the mean eigenvalue; then ten times as much.
FIRST = 1e-7


def settle(moment: Array) -> float:
    """Add the least multiple of the identity that takes away eigenvalues below zero, in place.

    Inputs in fewer directions than a patch has (few images, channels that repeat each other) leave
    eigenvalues of zero, which rounding makes negative: by up to 1e-5 of the mean eigenvalue, from products
    of float32. What only decomposing's own ridge is enough for stays as it is.

    Returns:
        what was added, as a share of the mean eigenvalue: 0, or a power of ten.
    """
    mean = float(moment.trace()) / len(moment)
    diagonal = moment.reshape(-1)[:: len(moment) + 1]
    np.maximum(diagonal, 0, out=diagonal)
    if mean <= 0:
        return 0.0
    share = 0.0
    while not _is_positive(moment, HARMLESS * mean):
        more = 10 * share if share else FIRST
        diagonal += (more - share) * mean
        share = more
    return share


def _is_positive(moment: Array, ridge: float) -> bool:
    # Column-major, as LAPACK takes it without a transposition; symmetric, and so the same.
    raised = moment.T.copy(order="F")
    np.einsum("ii->i", raised)[:] += ridge
    potrf = get_lapack_funcs("potrf", (raised,))
    _, failed = potrf(raised, lower=1, clean=0, overwrite_a=1)
    return not failed
