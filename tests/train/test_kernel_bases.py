"""Sets of kernels that are mixed from a few: PENNI's and ESCALATE's factors, and training inside."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from tdc_train.projections.sets import SparseBasis, TernaryBasis, TopK, make_set
from tdc_train.projections.sets.kernel_basis import leading_basis

from tdc_deploy.errors import TdcError
from tests.train.set_samples import EXACT, ROUNDED, distance, kernel, ready
from tests.train.small_models import relative


def test_sparse_coefficients_of_a_network_stay_where_most_would_be_lost() -> None:
    kind = SparseBasis(4, density=0.3, scope="network")
    weights = {"large": 3 * kernel(8, 6, 3, 3), "small": kernel(12, 8, 3, 3, seed=1)}
    sets = kind.prepared(weights)
    counts = {name: int(sets[name].factors(w)[0].count_nonzero()) for name, w in weights.items()}  # type: ignore[attr-defined]
    assert counts["large"] + counts["small"] == round(0.3 * 4 * (48 + 96))
    assert counts["large"] / 48 > 2 * counts["small"] / 96
    # Moving one coefficient from either layer to the other loses more.
    sizes = {}
    for name, w in weights.items():
        basis = leading_basis(w.flatten(2), 4)
        a = w.flatten(2) @ torch.linalg.pinv(basis)
        sizes[name] = (a.abs() * basis.norm(dim=1)).flatten().sort(descending=True).values
    for one, other in (("large", "small"), ("small", "large")):
        assert sizes[one][counts[one] - 1] >= sizes[other][counts[other]]
    with pytest.raises(TdcError, match="density of the network for one layer"):
        kind(weights["large"])
    # Prepared anew, as a stage after another does, it is as it was.
    assert sets["large"].prepared(weights) == dict.fromkeys(weights, sets["large"])
    assert make_set(sets["small"].table()) == sets["small"]


def plain_penni(weight: Any, basis: int, density: float) -> Any:
    """As published: the SVD's basis, small coefficients away, the basis by least squares."""
    rows = weight.reshape(-1, 9)
    b = torch.linalg.svd(rows, full_matrices=False)[2][:basis]
    a = TopK(density)(rows @ b.T)
    return (a @ torch.linalg.lstsq(a, rows).solution).reshape(weight.shape)


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("basis", [2, 5])
def test_a_sparse_basis_is_no_farther_than_pennis_own_steps(basis: int, density: float) -> None:
    # Kernels as trained ones are: some directions have ten times the energy of others.
    weight = (kernel(200, 9) * torch.logspace(0, -1, 9, dtype=torch.float64)).reshape(20, 10, 3, 3)
    kind = SparseBasis(basis=basis, density=density)
    found = kind(weight)
    assert distance(weight, found) <= distance(weight, plain_penni(weight, basis, density)) + EXACT
    a, b = kind.factors(weight)
    assert int(a.count_nonzero()) <= round(density * a.numel())
    assert relative(torch.einsum("mcd,dyx->mcyx", a, b), found) <= EXACT
    if density == 1.0:
        # Eckart and Young.
        rest = torch.linalg.svdvals(weight.reshape(-1, 9))[basis:].square().sum()
        assert distance(weight, found) == pytest.approx(float(rest), rel=1e-9)


def test_ternary_coefficients_are_ternary_for_each_filter() -> None:
    weight = kernel(12, 8, 3, 3)
    a, b = TernaryBasis(basis=4).factors(weight)
    assert b.shape == (4, 3, 3)
    for coefficients in a.abs():
        values = coefficients[coefficients > 0]
        assert float(values.max() - values.min()) <= EXACT
    # No scale of any filter can be improved, nor the basis.
    rows, flat = weight.reshape(-1, 9), a.reshape(-1, 4)
    left = rows - flat @ b.reshape(4, 9)
    assert float((left * (flat @ b.reshape(4, 9))).reshape(12, -1).sum(1).abs().max()) <= 1e-9


@pytest.mark.parametrize("kind", [SparseBasis(6, density=0.5), TernaryBasis(5)], ids=str)
def test_a_member_is_found_again_from_the_trained_basis_only(kind: Any) -> None:
    # Equal singular values: an SVD of the member turns the basis at will.
    random = kernel(16, 8, 3, 3)
    weight = torch.linalg.qr(random.reshape(-1, 9))[0].reshape(random.shape)
    project = ready(kind, weight)
    member = project(weight)
    assert relative(project(member), member) <= ROUNDED
    assert relative(kind(member), member) > 0.01
    basis = leading_basis(weight.flatten(2), kind.basis)
    assert project.start == tuple(map(tuple, basis.tolist()))  # type: ignore[attr-defined]


def test_sparse_coefficients_are_the_best_on_their_support() -> None:
    weight = kernel(12, 8, 3, 3)
    a, b = SparseBasis(5, density=0.3).factors(weight)
    rows, basis = weight.reshape(-1, 9), b.reshape(5, 9)
    left = (rows - a.reshape(-1, 5) @ basis) @ basis.T
    # Least squares: what is left is orthogonal to every kernel that a row uses.
    assert float((left * (a.reshape(-1, 5) != 0)).abs().max()) <= 1e-9


def test_the_space_of_a_sparse_basis_is_its_nearest_weights_on_each_kernels_choice() -> None:
    weight, step = kernel(12, 8, 3, 3), kernel(12, 8, 3, 3, seed=1)
    loose = SparseBasis(5, density=0.3)
    member, kind = loose(weight), loose.settled(weight)
    assert isinstance(kind, SparseBasis)
    space = kind.space(member)
    assert relative(space(member), member) <= EXACT
    moved = space(step)
    a, b = loose.factors(weight)
    rows, wanted = b.reshape(5, 9), torch.zeros(96, 9, dtype=torch.float64)
    for i, choice in enumerate((a != 0).reshape(96, 5)):
        if choice.any():
            fit = torch.linalg.lstsq(rows[choice].T, step.reshape(96, 9)[i])
            wanted[i] = fit.solution @ rows[choice]
    assert 0 < int((a != 0).reshape(96, 5).any(1).sum()) < 96
    assert relative(moved.reshape(96, 9), wanted) <= 1e-9
    # Moved there it is a member still, of the same choice.
    trained = member + 0.2 * moved
    again, _ = kind.factors(trained)
    assert torch.equal(again != 0, a != 0)
    assert relative(kind(trained), trained) <= EXACT
    assert kind.footprint(trained) == kind.footprint(member)
