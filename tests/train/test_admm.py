"""ADMM against its definition, and on problems whose constrained optimum is known."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from tdc_train.admm import Admm, Residuals, scaled_rho, share_out
from tdc_train.projections import Projection, SvdProjection, TuckerProjection
from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.types import Ranks
from tests.train.small_models import relative

RHO = 0.5

# The same float32 operations in the same order.
SAME = 1e-6


class Clip:
    """The box [-1, 1], whose projection is exact and has no warm start; remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, weight: Any) -> Any:
        self.seen.append(weight.clone())
        return weight.detach().clamp(-1, 1)

    def describe(self) -> str:
        return "box"


def parameters(**shapes: tuple[int, ...]) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(3 * torch.randn(shape, generator=generator))
        for name, shape in shapes.items()
    }


def gradient_of(weight: nn.Parameter) -> torch.Tensor:
    assert weight.grad is not None
    return weight.grad


def test_the_updates_come_in_the_authors_order() -> None:
    weights = parameters(a=(4, 3), b=(5,))
    boxes = {name: Clip() for name in weights}
    admm = Admm(weights, boxes, RHO)

    w = {name: weight.detach().clone() for name, weight in weights.items()}
    u = {name: torch.zeros_like(weight) for name, weight in w.items()}
    z = {name: weight.clamp(-1, 1) for name, weight in w.items()}
    for _ in range(3):
        moved = 0.0
        figures = admm.start_epoch()
        for name in w:
            new = (w[name] + u[name]).clamp(-1, 1)
            moved += float((new - z[name]).square().sum())
            z[name] = new
            u[name] = u[name] + w[name] - new
        apart = sum(float((w[name] - z[name]).square().sum()) for name in w)
        total = sum(float(w[name].square().sum()) for name in w)
        assert figures["admm_primal"] == pytest.approx((apart / total) ** 0.5, rel=SAME)
        assert figures["admm_dual"] == pytest.approx(RHO * moved**0.5, rel=SAME, abs=SAME)
        for _ in range(2):
            wanted = sum(RHO / 2 * (w[n] - z[n] + u[n]).square().sum() for n in w)
            penalty = admm.penalty()
            assert penalty.item() == pytest.approx(float(wanted), rel=SAME)
            for weight in weights.values():
                weight.grad = None
            penalty.backward()
            for name, weight in weights.items():
                gradient = RHO * (w[name] - z[name] + u[name])
                assert relative(gradient_of(weight), gradient) <= SAME
                with torch.no_grad():
                    weight.sub_(0.3 * gradient_of(weight))
                w[name] = w[name] - 0.3 * gradient


def test_each_epoch_projects_each_weight_once() -> None:
    weights, box = parameters(a=(4, 3)), Clip()
    admm = Admm(weights, {"a": box}, RHO)
    for _ in range(3):
        admm.start_epoch()
        admm.penalty()
    assert len(box.seen) == 3


def test_a_penalty_before_the_first_epoch_starts_at_the_weights() -> None:
    weights, box = parameters(a=(4, 3)), Clip()
    penalty = Admm(weights, {"a": box}, RHO).penalty()
    start = weights["a"].detach()
    wanted = RHO / 2 * (start - start.clamp(-1, 1)).square().sum()
    assert penalty.item() == pytest.approx(wanted.item(), rel=SAME)


def trained(
    weight: nn.Parameter, project: Projection, loss: Any, rho: float, epochs: int, rate: float
) -> Admm:
    """Gradient descent, 30 steps an epoch."""
    admm = Admm({"w": weight}, {"w": project}, rho)
    optimiser = torch.optim.SGD([weight], lr=rate)
    for _ in range(epochs):
        admm.start_epoch()
        for _ in range(30):
            optimiser.zero_grad()
            (loss(weight) + admm.penalty()).backward()
            optimiser.step()
    return admm


def test_reduced_rank_regression_is_solved() -> None:
    # min ½‖XB − Y‖² over rank(B) ≤ r has a closed form (Izenman 1975): the least-squares solution, times
    # the projector onto the leading right singular vectors of its fit. No projection of the dense
    # optimum gives it.
    torch.manual_seed(0)
    x = torch.randn(60, 8, dtype=torch.float64) * torch.logspace(0, -0.7, 8, dtype=torch.float64)
    y = x @ torch.randn(8, 6, dtype=torch.float64) + 0.1 * torch.randn(60, 6, dtype=torch.float64)
    dense = torch.linalg.lstsq(x, y).solution
    right = torch.linalg.svd(x @ dense)[2][:2]
    optimum = dense @ right.T @ right

    def loss(weight: Any) -> Any:
        return (x @ weight - y).square().sum() / 2

    weight = nn.Parameter(dense.clone())
    admm = trained(weight, SvdProjection(2), loss, rho=20.0, epochs=200, rate=0.01)
    assert admm.residuals().valid
    # The truncated dense solution, which no training was needed for, is much worse than ADMM's.
    truncated = SvdProjection(2)(dense)
    found = SvdProjection(2)(weight)
    assert relative(found, optimum) <= 0.01
    assert loss(found) - loss(optimum) <= 0.001 * (loss(truncated) - loss(optimum))


def test_a_tucker_kernel_is_found_where_the_loss_knows_nothing_of_directions() -> None:
    # The nearest member of the set is the optimum, and the projection itself gives it.
    torch.manual_seed(0)
    target = torch.randn(10, 9, 3, 3)
    weight = nn.Parameter(target.clone())
    project = TuckerProjection(Ranks(4, 5))
    admm = trained(
        weight, project, lambda w: (w - target).square().sum() / 2, rho=3.0, epochs=60, rate=0.1
    )
    assert admm.residuals().primal <= 0.01
    best = float((project(target) - target).norm())
    assert float((project(weight) - target).norm()) <= 1.01 * best


def test_too_small_a_rho_is_not_valid() -> None:
    target = torch.randn(10, 9, 3, 3, generator=torch.Generator().manual_seed(0))
    weight = nn.Parameter(target.clone())
    admm = trained(
        weight,
        TuckerProjection(Ranks(2, 2)),
        lambda w: (w - target).square().sum() / 2,
        rho=0.001,
        epochs=3,
        rate=0.1,
    )
    assert not admm.residuals().valid


def test_validity_is_a_primal_residual_below_a_tenth() -> None:
    assert Residuals(0.099, 5.0).valid
    assert not Residuals(0.1, 0.0).valid
    assert not Residuals(float("nan"), 0.0).valid


def test_residuals_by_layer() -> None:
    weights = parameters(a=(4, 3), b=(5,))
    admm = Admm(weights, {name: Clip() for name in weights}, RHO)
    with torch.no_grad():
        weights["b"].zero_()
    a = weights["a"]
    wanted = float((a - a.clamp(-1, 1)).norm() / a.norm())
    assert admm.layer_residuals() == {"a": pytest.approx(wanted, rel=SAME), "b": 0.0}


def run(admm: Admm, weight: nn.Parameter, epochs: int) -> None:
    for _ in range(epochs):
        admm.start_epoch()
        for _ in range(3):
            weight.grad = None
            admm.penalty().backward()
            with torch.no_grad():
                weight.sub_(0.2 * gradient_of(weight) + 0.05 * weight.sin())


def test_a_resumed_run_is_bit_for_bit_the_same() -> None:
    project = TuckerProjection(Ranks(3, 4))
    whole = parameters(w=(12, 11, 3, 3))["w"]
    one = Admm({"w": whole}, {"w": project}, RHO)
    run(one, whole, 5)

    first = parameters(w=(12, 11, 3, 3))["w"]
    before = Admm({"w": first}, {"w": project}, RHO)
    run(before, first, 2)
    again = nn.Parameter(first.detach().clone())
    after = Admm({"w": again}, {"w": project}, rho=99.0)
    state = before.state_dict()
    run(before, first, 1)  # the state that was taken is not the live one
    after.load_state_dict(state)
    run(after, again, 3)
    assert torch.equal(again, whole)
    assert after.residuals() == one.residuals()


def test_a_state_of_other_layers_is_refused() -> None:
    weights = parameters(a=(4, 3))
    admm = Admm(weights, {"a": Clip()}, RHO)
    admm.start_epoch()
    other = Admm(parameters(a=(4, 4)), {"a": Clip()}, RHO)
    with pytest.raises(TdcError, match="other layers"):
        other.load_state_dict(admm.state_dict())
    other.load_state_dict(Admm(weights, {"a": Clip()}, RHO).state_dict())  # one that never started


def test_bad_arguments_are_refused() -> None:
    weights = parameters(a=(4, 3))
    with pytest.raises(TdcError, match="rho is 0"):
        Admm(weights, {"a": Clip()}, 0.0)
    with pytest.raises(TdcError, match="without a weight"):
        Admm({}, {}, RHO)
    with pytest.raises(TdcError, match="'b' has only"):
        Admm(weights, {"a": Clip(), "b": Clip()}, RHO)


@pytest.mark.parametrize("call", ["start_epoch", "penalty"])
def test_weights_that_are_not_finite_are_refused(call: str) -> None:
    weights = parameters(a=(4, 3))
    with torch.no_grad():
        weights["a"][0, 0] = float("nan")
    with pytest.raises(TdcError, match="'a' holds NaN"):
        getattr(Admm(weights, {"a": Clip()}, RHO), call)()


@pytest.mark.parametrize(("steps", "rate", "momentum"), [(400, 0.02, 0.9), (3000, 0.01, 0.5)])
def test_rho_is_enough_for_the_time_there_is(steps: int, rate: float, momentum: float) -> None:
    """Without a loss, W - Z is to shrink by at least about exp(-15) over the training."""
    rho = scaled_rho(steps * rate / (1 - momentum))
    w, z = nn.Parameter(torch.ones(5, dtype=torch.float64)), torch.zeros(5, dtype=torch.float64)
    optimizer = torch.optim.SGD([w], lr=rate, momentum=momentum)
    for _ in range(steps):
        optimizer.zero_grad()
        (rho / 2 * (w - z).square().sum()).backward()
        optimizer.step()
    # Momentum may make it faster than the exponential, but not slower.
    assert float(w.detach().abs().max()) < math.exp(-14)


def test_rho_needs_a_learning_rate() -> None:
    with pytest.raises(TdcError, match="rates is 0"):
        scaled_rho(0)


def test_work_is_shared_out_by_cost() -> None:
    owners = share_out({"a": 5.0, "b": 4.0, "c": 3.0, "d": 3.0, "e": 3.0}, 2)
    loads = [
        sum({"a": 5, "b": 4, "c": 3, "d": 3, "e": 3}[n] for n in owners if owners[n] == p)
        for p in (0, 1)
    ]
    assert sorted(owners) == ["a", "b", "c", "d", "e"]
    assert max(loads) <= 10
