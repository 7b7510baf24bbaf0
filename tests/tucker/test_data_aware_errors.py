"""The errors of every rank on the inputs that are seen, against decomposing at each."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tdc_deploy.tucker.data_aware import data_aware_decompose, weighted_error, whitened_first
from tdc_deploy.tucker.data_aware_errors import data_aware_errors
from tdc_deploy.tucker.moments import regularised
from tdc_deploy.types import Form, Ranks
from tests.tucker.test_data_aware import kernel, moment

Array = NDArray[np.float64]

# The ridges of 1e-8 and 1e-10, and float64 sums.
TOLERANCE = 1e-6


def table_of(weight: Array, sigma: Array) -> Array:
    """Entry [r_in, r_out]; row 0 is not there."""
    found = data_aware_errors(weight, sigma, range(1, weight.shape[1] + 1))
    assert found is not None
    return np.stack([np.full(len(weight) + 1, np.nan), *found.values()])


def best_core_error(weight: Array, sigma: Array, r_in: int, r_out: int) -> float:
    """The error of the best core and `last` on the whitened kernel's leading rows, by least squares."""
    root = np.linalg.cholesky(sigma)
    regular = regularised(sigma)
    assert regular is not None
    first = whitened_first(weight, regular)[:r_in]
    positions = weight.shape[2] * weight.shape[3]
    inputs = np.kron(first, np.eye(positions)) @ root
    outputs = weight.reshape(len(weight), -1) @ root
    fitted = np.linalg.lstsq(inputs.T, outputs.T, rcond=None)[0].T @ inputs
    values = np.linalg.svd(fitted, compute_uv=False)
    return float(1 - (values[:r_out] ** 2).sum() / (outputs**2).sum())


@pytest.mark.parametrize("seed", range(2))
def test_each_is_that_of_the_best_core_on_the_whitened_basis(seed: int) -> None:
    weight, sigma = kernel(seed=seed), moment(30, seed + 5)
    table = table_of(weight, sigma)
    for r_in in range(1, 6):
        for r_out in range(1, 7):
            expected = best_core_error(weight, sigma, r_in, r_out)
            assert abs(table[r_in, r_out] - expected) <= TOLERANCE


@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize("form", ["tucker2", "tucker_in", "tucker_out"])
def test_what_is_decomposed_loses_no_more_and_hardly_less(form: Form, by_channel: bool) -> None:
    for seed in range(3):
        weight, sigma = kernel(seed=seed), moment(5 if by_channel else 30, seed + 5)
        table = table_of(weight, sigma)
        for ranks in (Ranks(2, 3), Ranks(4, 5), Ranks(3, 2)):
            given = {
                "tucker2": ranks,
                "tucker_in": Ranks(ranks.r_in, 6),
                "tucker_out": Ranks(5, ranks.r_out),
            }[form]
            estimate = table[given.r_in, given.r_out]
            for sweeps in (0, 20):
                factors = data_aware_decompose(weight, sigma, form, given, sweeps)
                error = weighted_error(weight, sigma, factors)
                assert error <= estimate + TOLERANCE
                # Random kernels gain much from sweeps; two fifths at the worst here.
                assert estimate <= 2 * error + TOLERANCE


def test_the_output_side_is_the_optimum() -> None:
    weight, sigma = kernel(), moment(30)
    values = np.linalg.svd(weight.reshape(6, -1) @ np.linalg.cholesky(sigma), compute_uv=False)
    table = table_of(weight, sigma)
    for r_out in range(1, 7):
        best = float((values[r_out:] ** 2).sum() / (values**2).sum())
        assert abs(table[5, r_out] - best) <= TOLERANCE


@pytest.mark.parametrize("size", [5, 30])
def test_they_fall_with_either_rank(size: int) -> None:
    table = table_of(kernel(), moment(size))[1:]
    assert (np.diff(table, axis=0) <= 1e-12).all()
    assert (np.diff(table, axis=1) <= 1e-12).all()
    np.testing.assert_array_equal(table[:, 0], 1)
    assert table[-1, -1] <= TOLERANCE


def test_only_what_is_asked_for_and_in_any_order() -> None:
    weight, sigma = kernel(), moment(30)
    some = data_aware_errors(weight, sigma, [4, 2, 4])
    assert some is not None
    assert list(some) == [2, 4]
    for r_in, errors in some.items():
        np.testing.assert_allclose(errors, table_of(weight, sigma)[r_in], atol=1e-12)


@pytest.mark.parametrize("samples", [1, 4])
def test_inputs_of_few_directions(samples: int) -> None:
    """So many ranks keep everything: the moment is singular, and has no inverse."""
    weight, sigma = kernel((6, 8, 3, 3)), moment(72, samples=samples)
    table = table_of(weight, sigma)[1:]
    assert np.isfinite(table).all()
    assert table[-1, samples] <= TOLERANCE


def test_what_says_nothing() -> None:
    assert data_aware_errors(kernel(), np.zeros((30, 30)), [1]) is None
    assert data_aware_errors(np.zeros((6, 5, 3, 2)), moment(30), [1]) is None
