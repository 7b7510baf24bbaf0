"""Ranks without training: the number of components that a matrix with noise has, by variational Bayes.

Source: S. Nakajima, M. Sugiyama, S. D. Babacan and R. Tomioka, "Global analytic solution of fully-observed
variational Bayesian matrix factorization" (JMLR 14, 2013), theorems 2 and 4 and corollary 1; on the two
channel unfoldings of a kernel as Kim et al. (ICLR 2016) choose Tucker-2 ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar

from tdc_deploy.errors import TdcError

Array = NDArray[np.float64]

# The noise variance's objective has kinks where a component enters: each interval of a fine grid (on a log
# scale) is a start, and the best few are refined.
GRID = 400
REFINED = 3

# A filter or channel whose weights are all this small beside the kernel's largest is dead.
DEAD = 1e-6
ROUNDING = 1e-16


@dataclass(frozen=True)
class Vbmf:
    """The solution for a matrix [L, M]: `values` are the components that stay, as VB shrinks them."""

    values: Array
    noise_variance: float

    @property
    def rank(self) -> int:
        """How many components stay; 0 if all is noise."""
        return len(self.values)


def vbmf(matrix: NDArray[np.floating], noise_variance: float | None = None) -> Vbmf:
    """The global minimum of the empirical variational Bayesian free energy of matrix = B·Aᵀ + noise.

    B and A have Gaussian priors with variances of each column's own, which are estimated with the posterior
    and, if it is not given, the noise's variance. Singular values below σ·√(M·(1+τ)(1+α/τ)), with
    α = L/M for L ≤ M, are noise; τ is the root of Φ(τ) + Φ(τ/α), Φ(z) = log(1+z)/z − 1/2.

    Args:
        matrix: [L, M], any of them the larger.
        noise_variance: σ², above 0.

    Raises:
        TdcError: no matrix, a value that is not finite, or a variance that is not positive.
    """
    v = np.asarray(matrix, np.float64)
    if v.ndim != 2 or not v.size or not np.isfinite(v).all():
        raise TdcError(f"a matrix of shape {v.shape}", expected="two dimensions, finite values")
    if noise_variance is not None and not 0 < noise_variance < math.inf:
        raise TdcError(f"a noise variance of {noise_variance}", expected="a number above 0")
    singular = np.linalg.svd(v, compute_uv=False)
    if not singular[0] > 0:
        return Vbmf(np.zeros(0), noise_variance or 0.0)
    # Free of units: variances from 1e-300 to 1e300 are well.
    scale = singular[0] / math.sqrt(max(v.shape))
    s, short, long = singular / scale, min(v.shape), max(v.shape)
    tau = _least_tau(short / long)
    if noise_variance is None:
        variance = _noise_variance(s, short, long, tau)
    else:
        variance = noise_variance / scale**2
    kept = s[s > math.sqrt(variance * long * _edge(tau, short / long))]
    shrunk = _shrunk(kept, short, long, variance) * scale
    return Vbmf(shrunk, variance * scale**2)


def kernel_ranks(weight: NDArray[np.floating]) -> tuple[int, int]:
    """(r_in, r_out) of a kernel [M, C, kh, kw]: `vbmf` of its two channel unfoldings.

    A 1x1 kernel is one matrix, and has twice the same. 0 where all is noise. Filters and channels that are
    zero are left out: they hold no component, and would say that the others' noise is signal.
    """
    live = weight[_live(weight, 0)]
    live = live[:, _live(live, 1)]
    m, c = live.shape[:2]
    if not live.size:
        return 0, 0
    out = vbmf(live.reshape(m, -1)).rank
    if weight.shape[2:] == (1, 1):
        return out, out
    return vbmf(live.transpose(1, 0, 2, 3).reshape(c, -1)).rank, out


def _live(weight: NDArray[np.floating], axis: int) -> NDArray[np.bool_]:
    """Which filters (axis 0) or channels (1) are not as good as zero."""
    largest = np.abs(np.asarray(weight, np.float64)).max((1 - axis, 2, 3), initial=0.0)
    return np.asarray(largest > DEAD * largest.max(initial=0.0))


def _least_tau(alpha: float) -> float:
    """The root of Φ(τ) + Φ(τ/α) (theorem 4's equation 34); about 2.5129·√α."""

    def xi(tau: float) -> float:
        return sum(math.log1p(z) / z - 0.5 for z in (tau, tau / alpha))

    guess = 2.5129 * math.sqrt(alpha)
    return float(brentq(xi, 0.5 * guess, 2 * guess, xtol=1e-14))


def _edge(tau: float, alpha: float) -> float:
    """What s²/(Mσ²) must exceed for a component to stay."""
    return (1 + tau) * (1 + alpha / tau)


def _shrunk(s: Array, short: int, long: int, variance: float) -> Array:
    """Equation 30: the components' size in the posterior's mean."""
    share = 1 - (short + long) * variance / s**2
    root = np.sqrt(np.maximum(share**2 - 4 * short * long * variance**2 / s**4, 0))
    return np.asarray(0.5 * s * (share + root))


def _noise_variance(s: Array, short: int, long: int, tau: float) -> float:
    """σ² of least free energy, within the bounds of corollary 1."""
    alpha = short / long
    edge = _edge(tau, alpha)
    most = max(min(math.ceil(short / (1 + alpha)) - 1, short - 1), 0)
    # An exact 0 says as much as the rounding of one.
    energies = np.maximum(s, ROUNDING * s[0]) ** 2
    upper = float(energies.sum()) / (short * long)
    lower = max(energies[most] / (long * edge), float(energies[most:].mean()) / long)
    # Singular values of exactly 0 would allow no noise at all, and the logarithm of it.
    lower = max(min(lower, upper), upper * 1e-14)

    def energy(log_variance: float) -> float:
        return _free_energy(energies, math.exp(log_variance), long, alpha, edge)

    grid = np.linspace(math.log(lower), math.log(upper), GRID)
    heights = np.array([energy(x) for x in grid])
    best = (float(heights.min()), float(grid[heights.argmin()]))
    for i in np.argsort(heights, kind="stable")[:REFINED]:
        ends = grid[max(i - 1, 0)], grid[min(i + 1, GRID - 1)]
        if ends[0] < ends[1]:
            found = minimize_scalar(energy, bounds=ends, method="bounded", options={"xatol": 1e-10})
            best = min(best, (float(found.fun), float(found.x)))
    return math.exp(best[1])


def _free_energy(energies: Array, variance: float, long: int, alpha: float, edge: float) -> float:
    """Twice the free energy over M, as a function of σ², up to a constant (theorem 4)."""
    x = energies / (long * variance)
    kept = x[x > edge]
    tau = 0.5 * (kept - (1 + alpha) + np.sqrt((kept - (1 + alpha)) ** 2 - 4 * alpha))
    # psi_0 of every component, and psi_1 of those that stay.
    every = float((x - np.log(x)).sum())
    gained = np.log1p(tau) + alpha * np.log1p(tau / alpha) - tau
    return every + float(gained.sum())
