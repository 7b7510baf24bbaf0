"""Data-aware decompositions against explicit least squares in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.tucker import Factors, decompose, reconstruct, tucker2
from tdc_deploy.tucker.alternating import Problem, alternate
from tdc_deploy.tucker.data_aware import data_aware_decompose, data_aware_tucker2, weighted_error
from tdc_deploy.types import Form, Ranks

Array = NDArray[np.float64]


def kernel(shape: tuple[int, ...] = (6, 5, 3, 2), seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def moment(size: int, seed: int = 1, samples: int = 0) -> Array:
    """E[x·xᵀ] of correlated samples, whose directions differ in strength by a hundred."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((size, size)) * np.geomspace(1, 0.01, size)
    x = rng.standard_normal((samples or 4 * size, size)) @ mixing
    return np.asarray(x.T @ x / len(x))


def error(weight: Array, sigma: Array, factors: Factors) -> float:
    """E‖(W−W̃)x‖² / E‖Wx‖² from the definition."""
    w = weight.reshape(len(weight), -1)
    lost = w - reconstruct(factors).reshape(len(weight), -1)
    return float(np.trace(lost @ sigma @ lost.T) / np.trace(w @ sigma @ w.T))


def by_explicit_least_squares(
    weight: Array, sigma: Array, ranks: Ranks, seed: int, sweeps: int = 60
) -> float:
    """The error of ALS from a random start, each factor by lstsq on the design matrix written out."""
    rng = np.random.default_rng(seed)
    m, c, kh, kw = weight.shape
    root = np.asarray(np.linalg.cholesky(sigma), np.float64)
    first = rng.standard_normal((ranks.r_in, c))
    last = rng.standard_normal((m, ranks.r_out))
    target = (weight.reshape(m, -1) @ root).ravel()
    for _ in range(sweeps):
        # vec over (m, patch) of last · core · (first ⊗ I): linear in each.
        core = solve((last, None, first), (ranks.r_out, ranks.r_in, kh, kw), root, target)
        first = solve((last, core, None), first.shape, root, target)
        last = solve((None, core, first), last.shape, root, target)
    return error(weight, sigma, Factors(first, core, last))


def solve(
    factors: tuple[Array | None, Array | None, Array | None],
    shape: tuple[int, ...],
    root: Array,
    target: Array,
) -> Array:
    """The best factor of this shape in the place of None."""
    columns = []
    for unit in np.eye(math.prod(shape)):
        operands = [unit.reshape(shape) if f is None else f for f in factors]
        made = np.einsum("ma,abyx,bc->mcyx", *operands)
        columns.append((made.reshape(len(made), -1) @ root).ravel())
    found = np.linalg.lstsq(np.stack(columns, 1), target, rcond=None)[0]
    return np.asarray(found, np.float64).reshape(shape)


@pytest.mark.parametrize("seed", range(3))
def test_as_good_as_the_best_of_many_starts(seed: int) -> None:
    weight, sigma = kernel((5, 4, 2, 2), seed), moment(16, seed + 10)
    ranks = Ranks(2, 3)
    found = error(weight, sigma, data_aware_decompose(weight, sigma, "tucker2", ranks, 500, 1e-9))
    best = min(by_explicit_least_squares(weight, sigma, ranks, start) for start in range(8))
    assert found <= 1.01 * best


@pytest.mark.parametrize("form", ["tucker2", "tucker_in", "tucker_out"])
@pytest.mark.parametrize("seed", range(4))
def test_never_worse_than_the_plain_one(form: Form, seed: int) -> None:
    weight, sigma = kernel(seed=seed), moment(30, seed + 5)
    ranks = {"tucker2": Ranks(2, 3), "tucker_in": Ranks(2, 6), "tucker_out": Ranks(5, 3)}[form]
    aware = error(weight, sigma, data_aware_decompose(weight, sigma, form, ranks))
    plain = error(weight, sigma, decompose(weight, form, ranks, refine=form == "tucker2"))
    assert aware < plain


def test_each_sweep_lowers_the_error() -> None:
    weight, sigma = kernel(), moment(30)
    positions = Problem(
        weight.reshape(6, 5, 6).swapaxes(1, 2).copy(),
        sigma.reshape(5, 6, 5, 6).transpose(1, 0, 3, 2).copy(),
        3,
    )
    run = alternate(positions, np.linalg.qr(kernel((5, 2), 3))[0].T)
    errors = [next(run).squared_error for _ in range(8)]
    assert all(after <= before for before, after in pairwise(errors))
    assert errors[-1] < 0.999 * errors[0]


def test_the_output_side_alone_is_the_whitened_svd() -> None:
    weight, sigma = kernel(), moment(30)
    root = np.linalg.cholesky(sigma)
    values = np.linalg.svd(weight.reshape(6, -1) @ root, compute_uv=False)
    best = float((values[3:] ** 2).sum() / (values**2).sum())
    factors = data_aware_decompose(weight, sigma, "tucker_out", Ranks(5, 3))
    # The ridge is 1e-8 of the mean eigenvalue.
    assert error(weight, sigma, factors) == pytest.approx(best, rel=1e-5)


def test_svd_of_a_pointwise_kernel() -> None:
    weight, sigma = kernel((7, 6, 1, 1)), moment(6)
    values = np.linalg.svd(weight[:, :, 0, 0] @ np.linalg.cholesky(sigma), compute_uv=False)
    best = float((values[2:] ** 2).sum() / (values**2).sum())
    factors = data_aware_decompose(weight, sigma, "svd", Ranks(2, 2))
    assert factors.core is None
    assert error(weight, sigma, factors) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("by_channel", [False, True])
def test_white_inputs_give_the_plain_decomposition(by_channel: bool) -> None:
    weight, ranks = kernel(), Ranks(2, 3)
    sigma = np.eye(5 if by_channel else 30)
    aware = data_aware_decompose(weight, sigma, "tucker2", ranks, 500, 1e-10)
    plain = tucker2(weight, ranks, refine=True)
    lost = [np.square(weight - reconstruct(f)).sum() for f in (aware, plain)]
    assert lost[0] <= 1.0001 * lost[1]


@pytest.mark.parametrize("form", ["tucker2", "tucker_in"])
def test_by_channel_is_the_block_diagonal_moment(form: Form) -> None:
    weight, channel = kernel(), moment(5)
    ranks = Ranks(2, 3 if form == "tucker2" else 6)
    full = np.asarray(np.kron(channel, np.eye(6)), np.float64)
    found = error(weight, full, data_aware_decompose(weight, channel, form, ranks))
    whole = error(weight, full, data_aware_decompose(weight, full, form, ranks, 500, 1e-10))
    assert found == pytest.approx(whole, rel=2e-3)
    assert weighted_error(
        weight, channel, data_aware_decompose(weight, channel, form, ranks)
    ) == pytest.approx(found, rel=1e-9)


def test_inputs_that_never_vary_in_some_direction() -> None:
    """Fewer samples than the patch has elements: the moment is singular."""
    weight, sigma = kernel(), moment(30, samples=12)
    aware = data_aware_decompose(weight, sigma, "tucker2", Ranks(3, 4))
    assert all(np.isfinite(part).all() for part in (aware.first, aware.core, aware.last))  # type: ignore[arg-type]
    assert error(weight, sigma, aware) <= error(weight, sigma, tucker2(weight, Ranks(3, 4)))


def test_full_ranks_lose_nothing() -> None:
    weight, sigma = kernel(), moment(30)
    factors = data_aware_tucker2(weight, sigma, Ranks(5, 6))
    np.testing.assert_allclose(reconstruct(factors), weight, atol=1e-6)


def test_a_moment_of_zeros_says_nothing() -> None:
    weight, ranks = kernel(), Ranks(2, 3)
    found = data_aware_tucker2(weight, np.zeros((30, 30)), ranks)
    np.testing.assert_array_equal(reconstruct(found), reconstruct(tucker2(weight, ranks)))


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (np.eye(7), "shape"),
        (np.full((30, 30), np.nan), "not finite"),
        (np.eye(30) + np.where(np.add.outer(range(30), range(30)) == 57, np.nan, 0), "not finite"),
        (np.triu(np.ones((30, 30))), "not symmetric"),
        (-np.eye(30), "negative"),
    ],
)
def test_no_moment_of_this_kernel(sigma: Array, message: str) -> None:
    with pytest.raises(TdcError, match=message):
        data_aware_tucker2(kernel(), sigma, Ranks(2, 3))
