"""Decompositions of kernels, against the kernel itself and an independent float64 HOSVD."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.tucker import Factors, decompose, mode_bases, reconstruct, svd_errors, tucker2
from tdc_deploy.types import Form, Ranks
from tests.helpers import conv64, decaying, fixed, relative

KERNELS = [(1, 1), (1, 3), (3, 1), (3, 3), (5, 5), (7, 7)]
CHANNELS = [(8, 8), (12, 5), (5, 12), (1, 6)]

# The factors are float64: rounding over at most 7·7·12 terms stays far below this.
EXACT = 1e-12


def unfoldings(weight: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The output- and input-channel unfoldings of a kernel."""
    w = np.asarray(weight, np.float64)
    m, c = w.shape[:2]
    return w.reshape(m, -1), np.moveaxis(w, 1, 0).reshape(c, -1)


def hosvd(weight: NDArray[np.floating], ranks: Ranks) -> NDArray[np.float64]:
    """The HOSVD approximation by projectors from full SVDs of the unfoldings."""
    out_unfolded, in_unfolded = unfoldings(weight)
    left = np.linalg.svd(out_unfolded, full_matrices=False)[0][:, : ranks.r_out]
    right = np.linalg.svd(in_unfolded, full_matrices=False)[0][:, : ranks.r_in]
    w = np.asarray(weight, np.float64)
    projected = np.einsum("mn,ncyx->mcyx", left @ left.T, w)
    return np.asarray(np.einsum("cd,mdyx->mcyx", right @ right.T, projected))


def error(factors: Factors, weight: NDArray[np.floating]) -> float:
    """‖W−W̃‖²/‖W‖²."""
    return relative(reconstruct(factors), weight) ** 2


def apply_chain(factors: Factors, x: NDArray[np.floating]) -> NDArray[np.float64]:
    """What the chain of convolutions puts out for an image, padded to keep its size."""
    y = np.asarray(x, np.float64)
    if factors.first is not None:
        y = conv64(y, factors.first[:, :, None, None])
    if factors.core is not None:
        kh, kw = factors.core.shape[2:]
        y = conv64(y, factors.core, pads=(kh // 2, kw // 2, kh // 2, kw // 2))
    if factors.last is not None:
        y = conv64(y, factors.last[:, :, None, None])
    return y


def forms(kernel: tuple[int, int]) -> list[Form]:
    """The forms that a kernel can have."""
    tucker: list[Form] = ["tucker2", "tucker_in", "tucker_out"]
    return [*tucker, "svd"] if kernel == (1, 1) else tucker


@pytest.mark.parametrize("channels", CHANNELS, ids=str)
@pytest.mark.parametrize(
    ("kernel", "form"), [(k, f) for k in KERNELS for f in forms(k)], ids=lambda v: str(v)
)
def test_full_rank_is_the_layer(
    kernel: tuple[int, int], form: Form, channels: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    m, c = channels
    weight = rng.standard_normal((m, c, *kernel), np.float32)
    ranks = Ranks(min(m, c), min(m, c)) if form == "svd" else Ranks(c, m)
    factors = decompose(weight, form, ranks)
    assert relative(reconstruct(factors), weight) <= EXACT
    x = rng.standard_normal((2, c, 8, 9))
    kh, kw = kernel
    layer = conv64(x, weight, pads=(kh // 2, kw // 2, kh // 2, kw // 2))
    assert relative(apply_chain(factors, x), layer) <= EXACT


@pytest.mark.parametrize("refine", [False, True])
def test_full_rank_refined(refine: bool) -> None:
    weight = np.random.default_rng(1).standard_normal((6, 9, 3, 3), np.float32)
    assert relative(reconstruct(tucker2(weight, Ranks(9, 6), refine)), weight) <= EXACT


def test_shapes_and_absent_parts() -> None:
    weight = np.random.default_rng(2).standard_normal((10, 7, 3, 5), np.float32)
    both = decompose(weight, "tucker2", Ranks(4, 3))
    assert both.first is not None and both.core is not None and both.last is not None
    assert both.first.shape == (4, 7)
    assert both.core.shape == (3, 4, 3, 5)
    assert both.last.shape == (10, 3)
    one = decompose(weight, "tucker_in", Ranks(4, 10))
    assert one.first is not None and one.core is not None and one.last is None
    assert one.core.shape == (10, 4, 3, 5)
    other = decompose(weight, "tucker_out", Ranks(7, 3))
    assert other.first is None and other.core is not None and other.last is not None
    assert other.core.shape == (3, 7, 3, 5)
    flat = decompose(weight[:, :, :1, :1], "svd", Ranks(2, 2))
    assert flat.core is None and flat.first is not None and flat.last is not None
    assert flat.first.shape == (2, 7) and flat.last.shape == (10, 2)


@given(
    m=st.integers(1, 10),
    c=st.integers(1, 10),
    kernel=st.sampled_from(KERNELS),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
@fixed(60)
def test_is_the_hosvd(
    m: int, c: int, kernel: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    weight = decaying(np.random.default_rng(seed), m, c, *kernel)
    ranks = Ranks(data.draw(st.integers(1, c)), data.draw(st.integers(1, m)))
    factors = tucker2(weight, ranks)
    assert factors.first is not None and factors.core is not None and factors.last is not None
    # Singular vectors from a Gram matrix lose half the digits where a mode's spectrum nears zero; those
    # directions carry as little of the kernel.
    assert np.abs(reconstruct(factors) - hosvd(weight, ranks)).max() <= 1e-6
    assert np.abs(factors.first @ factors.first.T - np.eye(ranks.r_in)).max() <= EXACT
    assert np.abs(factors.last.T @ factors.last - np.eye(ranks.r_out)).max() <= EXACT


@given(
    m=st.integers(1, 9),
    c=st.integers(1, 9),
    kernel=st.sampled_from([(1, 3), (3, 3), (5, 5)]),
    noise=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
@fixed(60)
def test_hooi_is_never_worse_than_hosvd(
    m: int, c: int, kernel: tuple[int, int], noise: bool, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((m, c, *kernel)) if noise else decaying(rng, m, c, *kernel)
    ranks = Ranks(data.draw(st.integers(1, c)), data.draw(st.integers(1, m)))
    plain, refined = tucker2(weight, ranks), tucker2(weight, ranks, refine=True)
    # Each sweep solves its subproblem exactly, so only rounding can make it worse.
    assert error(refined, weight) <= error(plain, weight) + 1e-12
    assert refined.first is not None and refined.core is not None and refined.last is not None
    assert refined.first.shape == (ranks.r_in, c)
    assert refined.core.shape == (ranks.r_out, ranks.r_in, *kernel)
    assert refined.last.shape == (m, ranks.r_out)
    # Orthonormal factors: an error that is small only through large, cancelling factors is no use.
    assert np.abs(refined.first @ refined.first.T - np.eye(ranks.r_in)).max() <= 1e-9
    assert np.abs(refined.last.T @ refined.last - np.eye(ranks.r_out)).max() <= 1e-9


def test_hooi_is_better_on_noise() -> None:
    weight = np.random.default_rng(3).standard_normal((16, 16, 3, 3))
    plain = error(tucker2(weight, Ranks(4, 4)), weight)
    refined = error(tucker2(weight, Ranks(4, 4), refine=True), weight)
    assert refined <= 0.99 * plain


def test_given_bases_are_used() -> None:
    weight = decaying(np.random.default_rng(4), 8, 6, 3, 3)
    left, right = mode_bases(weight)
    for form in ("tucker2", "tucker_in", "tucker_out"):
        ranks = Ranks(3 if form != "tucker_out" else 6, 4 if form != "tucker_in" else 8)
        alone = reconstruct(decompose(weight, form, ranks))
        given_bases = reconstruct(decompose(weight, form, ranks, bases=(left, right)))
        assert np.array_equal(alone, given_bases)
    flipped = decompose(weight, "tucker2", Ranks(3, 4), bases=(left[:, ::-1], right[:, ::-1]))
    assert error(flipped, weight) > 2 * error(tucker2(weight, Ranks(3, 4)), weight)


def test_bases_are_sorted_and_orthonormal() -> None:
    weight = decaying(np.random.default_rng(5), 12, 7, 3, 3)
    for basis, unfolded in zip(mode_bases(weight), unfoldings(weight), strict=True):
        size = basis.shape[0]
        assert basis.shape == (size, size)
        assert np.abs(basis.T @ basis - np.eye(size)).max() <= EXACT
        energy = np.square(basis.T @ unfolded).sum(1)
        assert np.all(np.diff(energy) <= EXACT * energy[0])


@given(
    m=st.integers(1, 12),
    c=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
@fixed(40)
def test_svd_is_optimal(m: int, c: int, seed: int, data: st.DataObject) -> None:
    """Eckart-Young: the error is the energy of the singular values that were dropped."""
    weight = np.random.default_rng(seed).standard_normal((m, c, 1, 1))
    rank = data.draw(st.integers(1, min(m, c)))
    factors = decompose(weight, "svd", Ranks(rank, rank))
    values = np.linalg.svd(weight[:, :, 0, 0], compute_uv=False)
    best = float(np.square(values[rank:]).sum() / np.square(values).sum())
    assert abs(error(factors, weight) - best) <= EXACT
    assert abs(float(svd_errors(weight)[rank]) - best) <= EXACT
    # Balanced: neither side holds all of the scale.
    assert factors.first is not None and factors.last is not None
    norms = np.linalg.norm(factors.first, axis=1), np.linalg.norm(factors.last, axis=0)
    assert np.abs(norms[0] - norms[1]).max() <= EXACT * norms[0].max()


@pytest.mark.parametrize(
    ("form", "ranks"),
    [
        ("tucker2", Ranks(7, 4)),
        ("tucker2", Ranks(6, 5)),
        ("tucker_in", Ranks(7, 4)),
        ("tucker_out", Ranks(6, 5)),
        ("svd", Ranks(5, 5)),
        ("svd", Ranks(7, 7)),
    ],
    ids=str,
)
def test_rank_above_the_channels(form: Form, ranks: Ranks) -> None:
    weight = np.ones((4, 6, 1, 1), np.float32)
    with pytest.raises(TdcError, match="r_in at most 6 and r_out at most 4"):
        decompose(weight, form, ranks)


def test_svd_of_a_larger_kernel() -> None:
    with pytest.raises(TdcError, match="svd of a 3x1 kernel"):
        decompose(np.ones((4, 4, 3, 1), np.float32), "svd", Ranks(2, 2))


def test_dense_is_no_decomposition() -> None:
    with pytest.raises(TdcError, match="dense"):
        decompose(np.ones((4, 4, 3, 3), np.float32), "dense", Ranks(2, 2))


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("form", ["tucker2", "tucker_in", "tucker_out", "svd"])
def test_zero_kernel(form: Form, refine: bool) -> None:
    kernel = (1, 1) if form == "svd" else (3, 3)
    weight = np.zeros((4, 5, *kernel), np.float32)
    ranks = {"tucker_in": Ranks(2, 4), "tucker_out": Ranks(5, 2)}.get(form, Ranks(2, 2))
    rebuilt = reconstruct(decompose(weight, form, ranks, refine))
    assert rebuilt.shape == weight.shape
    assert np.abs(rebuilt).max() <= 0


@pytest.mark.parametrize("refine", [False, True])
def test_rank_deficient_kernel(refine: bool) -> None:
    """A kernel of true ranks (2, 3) survives those ranks, and larger ones."""
    rng = np.random.default_rng(6)
    core = rng.standard_normal((3, 2, 3, 3))
    weight = np.einsum(
        "ma,abyx,bc->mcyx", rng.standard_normal((9, 3)), core, rng.standard_normal((2, 8))
    )
    for ranks in (Ranks(2, 3), Ranks(5, 6)):
        # Half of float64's digits: the bases come from a Gram matrix.
        assert relative(reconstruct(tucker2(weight, ranks, refine)), weight) <= 1e-7


def test_reconstruct_needs_both_sides_of_an_svd() -> None:
    with pytest.raises(ValueError, match="both first and last"):
        reconstruct(Factors(np.ones((1, 2)), None, None))
