"""The analytic solution against the free energy itself, minimised by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from tdc_deploy.errors import TdcError
from tdc_deploy.ranks.vbmf import kernel_ranks, vbmf
from tests.helpers import Array


def component(gamma: float, short: int, long: int, variance: float) -> tuple[float, float]:
    """(2F, size) of the best a·b for a singular value, with each of a, b, their variances and the priors'
    free: the definition, minimised numerically. (0, 0) where none is better than no component.
    """

    def energy(x: Array) -> float:
        a, b, var_a, var_b = np.exp(np.clip(x, -40, 40))
        power_a, power_b = a * a + long * var_a, b * b + short * var_b
        # The priors' variances at their optimum, power / count.
        prior = long * math.log(power_a / (long * var_a))
        prior += short * math.log(power_b / (short * var_b))
        return float(prior + (power_a * power_b - 2 * a * b * gamma) / variance)

    size = 0.5 * math.log(gamma)
    starts = [(size, size, size - d, size - d) for d in (1.0, 3.0, 6.0)]
    options = {"xatol": 1e-10, "fatol": 1e-12, "maxiter": 4000, "maxfev": 4000}
    found = [minimize(energy, s, method="Nelder-Mead", options=options) for s in starts]
    best = min(found, key=lambda result: result.fun)
    if not best.fun < -1e-6:
        return 0.0, 0.0
    return float(best.fun), math.exp(best.x[0] + best.x[1])


def by_shares(gamma: Array, short: int, long: int, variance: float) -> float:
    """Σ 2F of the components, quickly. With p and q the means' shares of the powers, the rest minimised in
    closed form, 2F = −M·log(1−p) − L·log(1−q) − γ²pq/σ², and q = 1 − Lσ²/(γ²p).
    """
    total = 0.0
    p = np.linspace(1e-4, 1, 20_000, endpoint=False)
    for value in gamma:
        power = value**2 / variance
        q = np.clip(1 - short / (power * p), 0, 1)
        energy = -long * np.log1p(-p) - short * np.log1p(-q) - power * p * q
        total += min(0.0, float(energy.min()))
    return total


@pytest.mark.parametrize(("short", "long"), [(5, 5), (8, 20), (3, 60)])
def test_each_component_is_the_free_energys_minimum(short: int, long: int) -> None:
    variance = 0.7
    # Around the edge of Marchenko and Pastur, where the decision is.
    edge = math.sqrt(variance) * (math.sqrt(short) + math.sqrt(long))
    kept = []
    for factor in (0.6, 0.95, 1.05, 1.15, 1.3, 2.0, 6.0):
        gamma = edge * factor
        matrix = np.zeros((short, long))
        matrix[0, 0] = gamma
        solution = vbmf(matrix, variance)
        _, size = component(gamma, short, long, variance)
        assert solution.rank == (size > 0), factor
        if size > 0:
            # Nelder and Mead end within 1e-5 of the minimum.
            assert abs(solution.values[0] - size) <= 1e-4 * size
        kept.append(solution.rank)
    assert 0 < sum(kept) < len(kept)


def test_the_quick_energy_is_the_definitions() -> None:
    for gamma in (3.0, 9.0, 20.0):
        quick = by_shares(np.array([gamma]), 6, 15, 1.3)
        assert abs(quick - component(gamma, 6, 15, 1.3)[0]) <= 1e-4 * max(1.0, abs(quick))


@pytest.mark.parametrize("seed", range(3))
def test_the_noise_is_the_free_energys_minimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    short, long = 10, 25
    matrix = rng.standard_normal((short, 2)) @ rng.standard_normal((2, long))
    matrix += 0.5 * rng.standard_normal((short, long))
    gamma = np.linalg.svd(matrix, compute_uv=False)

    def energy(variance: float) -> float:
        noise = short * long * math.log(variance) + float(gamma @ gamma) / variance
        return noise + by_shares(gamma, short, long, variance)

    grid = np.exp(np.linspace(math.log(0.05), math.log(2.0), 300))
    best = grid[np.argmin([energy(v) for v in grid])]
    # One step of the grid.
    assert abs(math.log(vbmf(matrix).noise_variance / best)) <= 0.0125


@pytest.mark.parametrize(("rows", "columns"), [(30, 80), (80, 30), (40, 40), (16, 576)])
@pytest.mark.parametrize("rank", [1, 5, 9])
def test_a_known_rank_is_found(rows: int, columns: int, rank: int) -> None:
    rng = np.random.default_rng(rank)
    signal = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    found = vbmf(signal + 0.3 * rng.standard_normal((rows, columns)))
    assert found.rank == rank
    # The estimate of a variance from n numbers has a deviation of √(2/n): 5% for 900.
    assert abs(found.noise_variance / 0.09 - 1) <= 0.2


def test_noise_alone_has_rank_0() -> None:
    for seed in range(5):
        assert vbmf(np.random.default_rng(seed).standard_normal((20, 50))).rank == 0
    assert vbmf(np.zeros((4, 7))).rank == 0


def test_a_matrix_without_noise_has_its_rank() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((20, 4)) @ rng.standard_normal((4, 50))
    found = vbmf(matrix)
    values = np.linalg.svd(matrix, compute_uv=False)[:4]
    assert found.rank == 4
    assert np.abs(found.values / values - 1).max() <= 1e-6
    assert vbmf(np.ones((1, 1))).rank <= 1


def test_units_and_orientation_make_no_difference() -> None:
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((12, 3)) @ rng.standard_normal((3, 40))
    matrix += 0.2 * rng.standard_normal((12, 40))
    found = vbmf(matrix)
    for other, factor in ((matrix.T, 1.0), (matrix * 1e-120, 1e-120), (matrix * 1e120, 1e120)):
        again = vbmf(other)
        assert again.rank == found.rank == 3
        # The noise is where a function is least, which rounding hides within the root of 1e-16.
        assert np.abs(again.values / factor / found.values - 1).max() <= 1e-7


def test_a_kernels_ranks_are_those_of_its_modes() -> None:
    rng = np.random.default_rng(2)
    core = rng.standard_normal((6, 3, 3, 3))
    left, right = rng.standard_normal((24, 6)), rng.standard_normal((16, 3))
    kernel = np.einsum("ma,abyx,cb->mcyx", left, core, right)
    kernel += 0.3 * rng.standard_normal(kernel.shape)
    assert kernel_ranks(kernel) == (3, 6)
    pointwise = np.einsum("ma,ca->mc", left, rng.standard_normal((48, 6)))[:, :, None, None]
    assert kernel_ranks(pointwise + 0.1 * rng.standard_normal(pointwise.shape)) == (6, 6)


def test_exact_zeros_are_as_good_as_their_rounding() -> None:
    values = np.arange(5, 0, -1.0)
    matrix = np.zeros((64, 288))
    matrix[:5, :5] = np.diag(values)
    found = vbmf(matrix)
    assert found.rank == 5
    assert np.abs(found.values / values - 1).max() <= 1e-6


def test_dead_filters_and_channels_hide_no_noise() -> None:
    rng = np.random.default_rng(4)
    factors = rng.standard_normal((48, 4)), rng.standard_normal((4, 4, 3, 3))
    kernel = np.einsum("ma,abyx,cb->mcyx", *factors, rng.standard_normal((32, 4)))
    kernel += 0.3 * rng.standard_normal(kernel.shape)
    assert kernel_ranks(kernel) == (4, 4)
    for tiny in (0.0, 1e-12):
        dying = kernel.copy()
        dying[::2] *= tiny
        dying[:, 1::3] *= tiny
        assert kernel_ranks(dying) == (4, 4)
        assert kernel_ranks(dying[:, :, 1:2, 1:2]) == (4, 4)
    assert kernel_ranks(np.zeros((8, 8, 3, 3))) == (0, 0)


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), np.full((2, 2), np.nan)])
def test_bad_matrices(bad: Array) -> None:
    with pytest.raises(TdcError, match="a matrix of shape"):
        vbmf(bad)


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, math.inf])
def test_bad_variances(variance: float) -> None:
    with pytest.raises(TdcError, match="noise variance"):
        vbmf(np.eye(3), variance)
