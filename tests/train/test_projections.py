"""Projections as projections: feasible, idempotent, and as near as independent searches get."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorly

pytest.importorskip("torch", reason="torch is not installed")

import torch
from numpy.typing import NDArray
from tdc_train.projections import (
    Projection,
    SvdProjection,
    TensorTrainProjection,
    TuckerProjection,
    WarmProjection,
    planned_projections,
)
from tdc_train.projections.planned import projection_of

from tdc_deploy.errors import TdcError
from tdc_deploy.types import Candidate, Ranks
from tests.helpers import decaying
from tests.train.small_models import every_form, relative, small_net

KERNELS: list[tuple[tuple[int, ...], Ranks]] = [
    ((24, 20, 3, 3), Ranks(6, 8)),
    ((20, 40, 1, 5), Ranks(4, 3)),
    ((40, 6, 3, 3), Ranks(3, 30)),
    ((12, 12, 1, 1), Ranks(5, 3)),
]
SPECTRA = ["noise", "decaying"]

# float32: the subspaces come from float64 Gram matrices, products are rounded to some 1e-7.
EXACT32 = 5e-6
EXACT64 = 1e-11


def kernel(shape: tuple[int, ...], spectrum: str, dtype: Any = torch.float64, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    values = decaying(rng, *shape) if spectrum == "decaying" else rng.standard_normal(shape)
    return torch.from_numpy(np.asarray(values)).to(dtype)


def unfolding_ranks(weight: Any, tolerance: float) -> tuple[int, int]:
    """(r_out, r_in) up to singular values of this share of the largest."""
    ranks = []
    for mode in (0, 1):
        values = torch.linalg.svdvals(weight.double().movedim(mode, 0).flatten(1))
        ranks.append(int((values > tolerance * values[0]).sum()))
    return ranks[0], ranks[1]


def multi_start_hooi(weight: Any, ranks: Ranks, starts: int = 10) -> float:
    """The least distance that tensorly's HOOI finds from random starts and from the SVDs."""
    values: NDArray[np.float64] = weight.double().numpy()
    best = np.inf
    for seed in range(starts):
        with tensorly.backend_context("numpy", local_threadsafe=True):
            (core, (left, right)), _ = tensorly.decomposition.partial_tucker(
                values,
                rank=[ranks.r_out, ranks.r_in],
                modes=[0, 1],
                init="svd" if seed == 0 else "random",
                random_state=seed,
                n_iter_max=200,
                tol=1e-9,
            )
        near = np.einsum("ma,abyx,cb->mcyx", left, core, right)
        best = min(best, float(np.linalg.norm(values - near)))
    return best


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize(("shape", "ranks"), KERNELS, ids=str)
def test_tucker_is_feasible_and_idempotent(
    shape: tuple[int, ...], ranks: Ranks, spectrum: str, dtype: Any
) -> None:
    weight = kernel(shape, spectrum, dtype)
    project = TuckerProjection(ranks)
    before = weight.clone()
    found = project(weight)
    tolerance = EXACT64 if dtype == torch.float64 else EXACT32
    assert (found.shape, found.dtype, found.requires_grad) == (weight.shape, weight.dtype, False)
    assert torch.equal(weight, before)
    r_out, r_in = unfolding_ranks(found, tolerance)
    assert r_out <= ranks.r_out and r_in <= ranks.r_in
    assert relative(project(found), found) <= tolerance
    assert relative(project.near(found, found), found) <= tolerance


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize(("shape", "ranks"), KERNELS, ids=str)
def test_tucker_is_within_a_hundredth_of_multi_start_hooi(
    shape: tuple[int, ...], ranks: Ranks, spectrum: str, warm: bool
) -> None:
    weight = kernel(shape, spectrum, torch.float32)
    project = TuckerProjection(ranks)
    if warm:
        # The member of the set is that of a neighbour, as from one epoch to the next.
        neighbour = weight + 0.1 * weight.std() * kernel(shape, "noise", torch.float32, seed=7)
        found = project.near(weight, project(neighbour))
    else:
        found = project(weight)
    assert float((weight - found).norm()) <= 1.01 * multi_start_hooi(weight, ranks)


@pytest.mark.parametrize("start", ["unrelated", "zero", "orthogonal"])
def test_a_bad_start_does_no_harm(start: str) -> None:
    shape, ranks = KERNELS[0]
    weight = kernel(shape, "decaying", torch.float32)
    project = TuckerProjection(ranks)
    starts = {
        "unrelated": project(kernel(shape, "noise", torch.float32, seed=9)),
        "zero": torch.zeros(shape),
        # All that it spans is what the answer leaves out.
        "orthogonal": project(weight - project(weight)),
    }
    found = project.near(weight, starts[start])
    assert float((weight - found).norm()) <= 1.01 * float((weight - project(weight)).norm())


def test_what_the_start_is_orthogonal_to_is_found() -> None:
    # Two blocks that share no channel, and a start within the weak one: without directions from
    # outside, each sweep would stay there.
    weight = torch.zeros(24, 24, 3, 3)
    weight[:12, :12] = kernel((12, 12, 3, 3), "decaying", torch.float32)
    start = torch.zeros_like(weight)
    start[12:, 12:] = kernel((12, 12, 3, 3), "decaying", torch.float32, seed=2)
    weight += 0.1 * start
    project = TuckerProjection(Ranks(3, 4))
    found = project.near(weight, project(start))
    assert float((weight - found).norm()) <= 1.01 * float((weight - project(weight)).norm())


def test_small_singular_values_are_told_apart() -> None:
    # A Gram matrix in float32 knows none below 3e-4 of the largest.
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 12, dtype=torch.float64))[0] for n in (12, 30))
    values = torch.logspace(0, -5.5, 12, dtype=torch.float64)
    weight = ((left * values) @ right.T).float()
    distance = float((weight - SvdProjection(10)(weight)).norm())
    # The weight itself is rounded to 1e-7, which is a hundredth of this.
    assert distance <= 1.05 * float(values[10:].norm())


def feasible_neighbours(answer: Any, ranks: Ranks, count: int = 200) -> Any:
    """Members of the Tucker set around a member, at distances from 1e-4 to 1 of its size."""
    values = answer.double()
    left = torch.linalg.svd(values.flatten(1))[0][:, : ranks.r_out]
    right = torch.linalg.svd(values.movedim(1, 0).flatten(1))[0][:, : ranks.r_in]
    core = torch.einsum("mcyx,ma,cb->abyx", values, left, right)
    generator = torch.Generator().manual_seed(3)
    for step in torch.logspace(-4, 0, count):
        moved = [
            part
            + step
            * part.norm()
            / part.numel() ** 0.5
            * torch.randn(part.shape, generator=generator, dtype=torch.float64)
            for part in (left, core, right)
        ]
        yield torch.einsum("ma,abyx,cb->mcyx", *moved)


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize(("shape", "ranks"), KERNELS, ids=str)
def test_no_feasible_perturbation_of_the_answer_is_nearer(
    shape: tuple[int, ...], ranks: Ranks, spectrum: str
) -> None:
    weight = kernel(shape, spectrum)
    found = TuckerProjection(ranks)(weight)
    distance = float((weight - found).norm())
    for other in feasible_neighbours(found, ranks):
        # The sweeps stop a little before the optimum.
        assert distance <= (1 + 1e-4) * float((weight - other).norm())


@pytest.mark.parametrize(
    ("ranks", "mode"), [(Ranks(6, 24), 1), (Ranks(20, 5), 0), (Ranks(6, 99), 1)], ids=str
)
def test_one_sided_tucker_is_the_truncated_svd(ranks: Ranks, mode: int) -> None:
    weight = kernel((24, 20, 3, 3), "noise", torch.float32)
    unfolded = weight.double().movedim(mode, 0).flatten(1)
    u, s, vt = torch.linalg.svd(unfolded, full_matrices=False)
    rank = ranks.r_in if mode else ranks.r_out
    near = (u[:, :rank] * s[:rank]) @ vt[:rank]
    moved = weight.movedim(mode, 0)
    wanted = near.reshape(moved.shape).movedim(0, mode)
    assert relative(TuckerProjection(ranks)(weight), wanted) <= EXACT32


def test_ranks_that_bind_nothing_leave_the_kernel() -> None:
    weight = kernel((8, 9, 3, 3), "noise", torch.float32)
    found = TuckerProjection(Ranks(9, 8))(weight)
    assert torch.equal(found, weight)
    assert found.data_ptr() != weight.data_ptr()


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (12, 30, 1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_svd_is_the_closed_form(shape: tuple[int, ...], dtype: Any) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    found = SvdProjection(5)(weight)
    u, s, vt = torch.linalg.svd(weight.double().flatten(1), full_matrices=False)
    wanted = ((u[:, :5] * s[:5]) @ vt[:5]).reshape(shape)
    tolerance = EXACT64 if dtype == torch.float64 else EXACT32
    assert found.shape == shape and found.dtype == dtype
    assert relative(found, wanted) <= tolerance
    assert relative(SvdProjection(5)(found), found) <= tolerance
    assert torch.equal(SvdProjection(12)(weight), weight)


def tt_svd(weight: Any, first: int, second: int) -> Any:
    """Oseledets' TT-SVD of [M, kh·kw, C]."""
    m, c = weight.shape[:2]
    tensor = weight.double().movedim(1, 3).reshape(m, -1, c)
    u, s, vt = torch.linalg.svd(tensor.flatten(1), full_matrices=False)
    left = u[:, :first]
    rest = (s[:first, None] * vt[:first]).reshape(first * tensor.shape[1], c)
    u, s, vt = torch.linalg.svd(rest, full_matrices=False)
    near = (u[:, :second] * s[:second]) @ vt[:second]
    full = (left @ near.reshape(first, -1)).reshape(m, *weight.shape[2:], c)
    return full.movedim(3, 1)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_tensor_train_is_no_farther_than_tt_svd_and_feasible(spectrum: str) -> None:
    weight = kernel((24, 20, 3, 3), spectrum)
    project = TensorTrainProjection(first=8, second=6)
    found = project(weight)
    usual = tt_svd(weight, 8, 6)
    # The sweeps stop where they gain 5e-4 of the squared distance.
    assert float((weight - found).norm()) <= 1.001 * float((weight - usual).norm())
    # What TT-SVD finds is in the set: it stays where it is.
    assert relative(project(usual), usual) <= EXACT64
    assert relative(tt_svd(found, 8, 6), found) <= EXACT64
    warm = project.near(weight, found)
    assert float((weight - warm).norm()) <= 1.001 * float((weight - found).norm())


@pytest.mark.parametrize(
    ("project", "shape"),
    [
        (TuckerProjection(Ranks(2, 2)), (4, 4)),
        (SvdProjection(2), (4, 4, 3, 3)),
        (SvdProjection(2), (4,)),
    ],
    ids=str,
)
def test_weights_of_another_kind_are_refused(project: Projection, shape: tuple[int, ...]) -> None:
    with pytest.raises(TdcError, match="a weight of shape"):
        project(torch.zeros(shape))


def test_half_precision_is_projected_in_float32() -> None:
    weight = kernel((24, 20, 3, 3), "decaying").to(torch.bfloat16)
    found = TuckerProjection(Ranks(6, 8))(weight)
    wanted = TuckerProjection(Ranks(6, 8))(weight.float())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, wanted.to(torch.bfloat16))


def test_bad_ranks_are_refused() -> None:
    with pytest.raises(TdcError, match="rank is 0"):
        SvdProjection(0)
    with pytest.raises(TdcError, match="r_out is 0"):
        TensorTrainProjection(0, 3)


def test_a_plan_gives_each_layer_its_set() -> None:
    model = small_net()
    weights, projections = planned_projections(model, every_form())
    assert list(weights) == list(projections) == list(every_form().selection)
    assert weights["fc"] is model.fc.weight
    assert projections["blocks.1"] == SvdProjection(8)
    assert projections["layer1.1.conv1"] == TuckerProjection(Ranks(4, 24))
    assert isinstance(projections["blocks.0"], WarmProjection)
    assert not isinstance(projections["fc"], WarmProjection)
    assert projections["blocks.0"].describe() == "tucker2 6→5"
    for name, project in projections.items():
        assert project(weights[name]).shape == weights[name].shape
    with pytest.raises(TdcError, match="no constraint"):
        projection_of(Candidate("dense"))
