"""The tables of errors, against decomposing at every rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdc_deploy.tucker import decompose, mode_bases, reconstruct, svd_errors, tucker2_errors
from tdc_deploy.types import Form, Ranks
from tests.helpers import decaying, fixed, relative

# Differences of float64 sums of numbers up to 1.
TOLERANCE = 1e-12


def lost(weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]], form: Form, r: Ranks) -> float:
    """‖W−W̃‖²/‖W‖² by decomposing and putting together again."""
    return relative(reconstruct(decompose(weight, form, r)), weight) ** 2


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (3, 7, 1, 5), (5, 5, 5, 5), (1, 4, 3, 3)], ids=str)
def test_every_pair_of_ranks(shape: tuple[int, ...]) -> None:
    weight = decaying(np.random.default_rng(0), *shape)
    m, c = shape[:2]
    table = tucker2_errors(weight)
    assert table.shape == (m + 1, c + 1)
    for r_out in range(1, m + 1):
        for r_in in range(1, c + 1):
            direct = lost(weight, "tucker2", Ranks(r_in, r_out))
            assert abs(table[r_out, r_in] - direct) <= TOLERANCE
    for r_in in range(1, c + 1):
        assert abs(table[m, r_in] - lost(weight, "tucker_in", Ranks(r_in, m))) <= TOLERANCE
    for r_out in range(1, m + 1):
        assert abs(table[r_out, c] - lost(weight, "tucker_out", Ranks(c, r_out))) <= TOLERANCE


def test_nothing_kept_and_everything_kept() -> None:
    table = tucker2_errors(decaying(np.random.default_rng(1), 5, 6, 3, 3))
    assert np.all(table[0] == 1) and np.all(table[:, 0] == 1)
    assert abs(table[-1, -1]) <= 0


@given(m=st.integers(1, 9), c=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
@fixed(40)
def test_falls_with_both_ranks(m: int, c: int, seed: int) -> None:
    table = tucker2_errors(np.random.default_rng(seed).standard_normal((m, c, 3, 3)))
    assert np.all(np.diff(table, axis=0) <= 0)
    assert np.all(np.diff(table, axis=1) <= 0)
    assert np.all((table >= 0) & (table <= 1))


def test_known_bases_are_used() -> None:
    weight = decaying(np.random.default_rng(2), 6, 7, 3, 3)
    assert np.array_equal(tucker2_errors(weight), tucker2_errors(weight, mode_bases(weight)))


@pytest.mark.parametrize("shape", [(6, 4, 1, 1), (4, 6, 1, 1), (5, 5, 1, 1), (1, 3, 1, 1)], ids=str)
def test_svd_at_every_rank(shape: tuple[int, ...]) -> None:
    weight = decaying(np.random.default_rng(3), *shape)
    errors = svd_errors(weight)
    assert errors.shape == (min(shape[:2]) + 1,)
    assert errors[0] == 1
    assert abs(errors[-1]) <= 0
    assert np.all(np.diff(errors) <= 0)
    for rank in range(1, len(errors)):
        assert abs(errors[rank] - lost(weight, "svd", Ranks(rank, rank))) <= TOLERANCE


def test_a_kernel_of_zeros_loses_nothing() -> None:
    assert np.all(tucker2_errors(np.zeros((3, 4, 3, 3), np.float32)) == 0)
    assert np.all(svd_errors(np.zeros((3, 4, 1, 1), np.float32)) == 0)


def test_scale_does_not_matter() -> None:
    """Even where float32 energies would overflow or vanish."""
    weight = decaying(np.random.default_rng(4), 4, 4, 3, 3)
    for scale in (1e-25, 1e25):
        scaled = tucker2_errors((weight * np.float32(scale)).astype(np.float32))
        # The scaled weights are rounded to float32.
        assert np.abs(scaled - tucker2_errors(weight)).max() <= 1e-5
