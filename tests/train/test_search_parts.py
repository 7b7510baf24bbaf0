"""The parts of a rank search: mixture, expected time, budget, choice; in float64, by definition."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from tdc_train.layers import SvdConv2d, TuckerConv2d
from tdc_train.search.budget import BudgetPenalty, expected_time
from tdc_train.search.choose import choose
from tdc_train.search.mixture import MixedKernel
from tdc_train.search.space import Space, space_from_plain, space_to_plain
from tdc_train.search.spec import SearchSpec
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Trial
from tdc_deploy.progress import silent
from tdc_deploy.ranks.milp import Selected
from tdc_deploy.ranks.table import CostTable, latency
from tdc_deploy.types import DENSE, Candidate, Ranks
from tests.ranks.tables import row
from tests.train.small_models import relative

SPATIAL = (
    DENSE,
    Candidate("tucker2", Ranks(3, 5), "fused"),
    Candidate("tucker2", Ranks(7, 7), "fused"),
    Candidate("tucker_in", Ranks(4, 10)),
    Candidate("tucker_out", Ranks(8, 6)),
)
POINTWISE = (DENSE, *(Candidate("svd", Ranks(r, r)) for r in (1, 3, 6)))


def conv(size: int) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(8, 10, size, stride=2, padding=size // 2).double()


def mixing(layer: nn.Conv2d, candidates: tuple[Candidate, ...]) -> MixedKernel:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    return MixedKernel(weight, candidates)


def chain(layer: nn.Conv2d, candidate: Candidate) -> nn.Module:
    """The candidate as the chain that would be deployed."""
    if candidate.form == "dense":
        return layer
    if candidate.form == "svd":
        assert candidate.ranks is not None
        return SvdConv2d.from_conv(layer, candidate.ranks.r_in)
    return TuckerConv2d.from_conv(layer, candidate)


def random_shares(count: int, seed: int = 1, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(spread * torch.randn(count, generator=generator, dtype=torch.float64), 0)


@pytest.mark.parametrize(("size", "candidates"), [(3, SPATIAL), (1, POINTWISE)])
def test_the_mixed_kernels_output_is_the_mixture_of_the_chains_outputs(
    size: int, candidates: tuple[Candidate, ...]
) -> None:
    layer = conv(size)
    kernel = mixing(layer, candidates)
    shares = random_shares(len(candidates))
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    mixed = F.conv2d(x, kernel.mixed(shares), layer.bias, 2, size // 2)
    outputs = torch.stack([chain(layer, c)(x) for c in candidates])
    wanted = torch.einsum("i,inchw->nchw", shares, outputs)
    # float64 through three matrix products.
    assert relative(mixed, wanted) <= 1e-10
    for i, candidate in enumerate(candidates):
        one = F.one_hot(torch.tensor(i), len(candidates)).double()
        alone = F.conv2d(x, kernel.mixed(one), layer.bias, 2, size // 2)
        assert relative(alone, outputs[i]) <= 1e-10, candidate


def test_dense_alone_is_the_kernel_to_the_bit() -> None:
    layer = conv(3).float()
    kernel = mixing(layer, SPATIAL)
    assert torch.equal(kernel.mixed(torch.eye(len(SPATIAL))[0]), layer.weight)


@pytest.mark.parametrize(("size", "candidates"), [(3, SPATIAL), (1, POINTWISE)])
def test_a_truncated_layer_decomposes_without_loss(
    size: int, candidates: tuple[Candidate, ...]
) -> None:
    for i, candidate in enumerate(candidates):
        layer = conv(size)
        kernel = mixing(layer, candidates)
        with torch.no_grad():
            # As training does: the bases are not the kernel's any more.
            layer.weight += 0.1 * torch.randn_like(layer.weight)
        kernel.truncate(i)
        x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
        assert relative(chain(layer, candidate)(x), layer(x)) <= 1e-10, candidate


def test_a_mixed_kernels_gradient_reaches_weight_and_shares() -> None:
    layer = conv(3)
    kernel = mixing(layer, SPATIAL)
    shares = random_shares(len(SPATIAL)).requires_grad_(True)
    assert torch.autograd.gradcheck(kernel.mixed, (shares, layer.weight))


def table(layers: int = 3, seed: int = 0) -> CostTable:
    rng = np.random.default_rng(seed)
    rows = {}
    for i in range(layers):
        dense_ms = float(rng.uniform(0.5, 1))
        offers = [(r, dense_ms * (0.2 + 0.01 * r + 0.1 * rng.random()), 0.1) for r in (8, 16, 32)]
        rows[f"l{i}"] = row(f"l{i}", dense_ms, offers)
    return CostTable(rows)


def space(made: CostTable, scale: float = 1.0) -> Space:
    return Space(made, made.dense_ms * 1.25, scale, {"backend": "stand-in"}, 0)


def test_the_expected_time_is_the_sum_over_every_network() -> None:
    made = space(table(), scale=0.8)
    shares = {path: random_shares(4, i) for i, path in enumerate(made.table.rows)}
    total = 0.0
    for choice in itertools.product(range(4), repeat=3):
        probability, saved = 1.0, 0.0
        for (path, row_), i in zip(made.table.rows.items(), choice, strict=True):
            probability *= float(shares[path][i])
            saved += row_.dense_ms - latency(row_.candidates[i])
        total += probability * (1 - 0.8 * saved / made.dense_ms)
    assert abs(float(expected_time(made)(shares)) - total) <= 1e-14


def test_the_expected_times_gradient() -> None:
    made = space(table())
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def time(alpha: Tensor) -> Tensor:
        return expected_time(made)(dict(zip(made.table.rows, torch.softmax(alpha, 1), strict=True)))

    assert torch.autograd.gradcheck(time, (logits,))


@pytest.mark.parametrize("multiplier", [0.0, 0.7])
def test_the_penaltys_derivative_is_the_multiplier_plus_pressure(multiplier: float) -> None:
    penalty = BudgetPenalty(0.6, 20.0)
    penalty.multiplier = multiplier
    for time in (0.4, 0.59, 0.65, 1.0):
        at = torch.tensor(time, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(penalty(at), at)
        wanted = max(0.0, multiplier + 20 * math.log(time / 0.6)) / time
        assert abs(float(slope) - wanted) <= 1e-12
        assert torch.autograd.gradcheck(penalty, (at,))


def test_the_multiplier_follows_the_excess_both_ways() -> None:
    penalty = BudgetPenalty(0.5, 10.0)
    penalty.update(0.6, 0.25)
    up = 2.5 * math.log(1.2)
    assert abs(penalty.multiplier - up) <= 1e-12
    penalty.update(0.49, 0.25)
    assert abs(penalty.multiplier - (up + 2.5 * math.log(0.98))) <= 1e-12
    penalty.update(0.1, 0.25)
    assert penalty.multiplier == 0


@pytest.mark.parametrize(("budget", "binding"), [(0.5, True), (0.9, False)])
def test_the_budget_is_met_exactly_or_does_not_bind(budget: float, binding: bool) -> None:
    """A loss that alone would have its least at a time of 0.8, with a slope of 3 where the budget is."""
    penalty = BudgetPenalty(budget, 20.0)
    x = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=0.005)
    for _ in range(1500):
        optimizer.zero_grad()
        (5 * (x - 0.8).square() + penalty(x)).backward()
        optimizer.step()
        penalty.update(float(x.detach()), 1 / 50)
    assert abs(float(x.detach()) - (budget if binding else 0.8)) <= 1e-3
    # At rest, μ/x is the loss's slope.
    assert abs(penalty.multiplier / float(x.detach()) - (3.0 if binding else 0.0)) <= 0.02


def brute_force(made: Space, shares: dict[str, list[float]], budget: float) -> float:
    """The largest log-probability of a network in the budget."""
    best = -math.inf
    rows = made.table.rows
    for choice in itertools.product(*(range(len(r.candidates)) for r in rows.values())):
        chosen = dict(zip(rows, choice, strict=True))
        selection = {path: rows[path].candidates[i] for path, i in chosen.items()}
        if 1 - made.table.saved_ms(selection) / made.dense_ms <= budget:
            best = max(best, sum(math.log(shares[path][i]) for path, i in chosen.items()))
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("budget", [0.55, 0.65, 0.8])
def test_the_most_probable_network_in_the_budget_is_chosen(seed: int, budget: float) -> None:
    made = space(table(seed=seed))
    shares = {
        # Far apart, so that a product is not ordered as a sum is.
        path: random_shares(4, 10 * seed + i, 4.0).tolist()
        for i, path in enumerate(made.table.rows)
    }

    def trial(selection: Selected) -> Trial:
        return Trial(1 - made.table.saved_ms(selection) / made.dense_ms, 0.03)

    plan = choose(made, shares, budget, trial, silent)
    selection = {path: choice.candidate for path, choice in plan.layers.items()}
    assert plan.network is not None
    assert plan.network.ratio <= budget
    assert abs(plan.network.ratio - trial(selection).ratio) <= 1e-12
    assert plan.network.error == 0.03
    found = sum(
        math.log(shares[path][made.table.rows[path].candidates.index(c)])
        for path, c in selection.items()
    )
    assert abs(found - brute_force(made, shares, budget)) <= 1e-9
    assert not plan.missed


def test_the_likeliest_repairs_a_network_however_unlikely() -> None:
    """As at the last temperature, where shares are far apart."""
    made = space(table(1))
    # Dense, and ranks of 8, 16 and 32.
    shares = torch.softmax(torch.tensor([90.0, 10.0, 30.0, 50.0], dtype=torch.float64), 0)

    def trial(selection: Selected) -> Trial:
        return Trial(1 - made.table.saved_ms(selection) / made.dense_ms, 0.03)

    candidates = made.table.rows["l0"].candidates
    budget = trial({"l0": candidates[2]}).ratio + 1e-3
    assert trial({"l0": candidates[1]}).ratio < budget < trial({"l0": candidates[3]}).ratio
    plan = choose(made, {"l0": shares.tolist()}, budget, trial, silent)
    assert plan.layers["l0"].candidate == candidates[2]


def test_the_budget_is_met_where_networks_save_less_than_their_layers() -> None:
    made = space(table(6))
    shares = {path: [0.7, 0.1, 0.1, 0.1] for path in made.table.rows}

    def trial(selection: Selected) -> Trial:
        return Trial(1 - 0.8 * made.table.saved_ms(selection) / made.dense_ms, 0.03)

    plan = choose(made, shares, 0.6, trial, silent)
    assert plan.network is not None
    assert 0.5 <= plan.network.ratio <= 0.6
    assert abs(plan.network.predicted_ms - plan.network.measured_ms) <= 1e-9
    beyond = choose(made, shares, 0.01, trial, silent)
    assert beyond.network is not None
    assert "0.01 was not met" in beyond.missed[0]
    fastest = {path: min(r.candidates, key=latency) for path, r in made.table.rows.items()}
    assert {path: c.candidate for path, c in beyond.layers.items()} == fastest


def test_a_space_is_kept_whole() -> None:
    made = space(table(), scale=0.9)
    buffer = io.BytesIO()
    torch.save(space_to_plain(made), buffer)
    buffer.seek(0)
    assert space_from_plain(torch.load(buffer, weights_only=True)) == made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0.0}, "budget is 0.0"),
        ({"budget": 1.5}, "budget is 1.5"),
        ({"lr": -1.0}, "lr is"),
        ({"temperature": 0.05}, "final_temperature is 0.1"),
        ({"every": 0}, "every is 0"),
        ({"warmup": 0.5}, "warmup is 0.5"),
        ({"paths": "both"}, "paths is 'both'"),
        ({"backend": "tvm"}, "backend is 'tvm'"),
        ({"precision": "fp16"}, "precision 'fp16' on onnxruntime"),
        ({"entropy": float("nan")}, "entropy is nan"),
        ({"equal_ranks": 1}, "equal_ranks is 1"),
    ],
)
def test_values_that_do_not_exist(change: dict[str, object], message: str) -> None:
    with pytest.raises(TdcError, match=message):
        replace(SearchSpec(), **change)  # type: ignore[arg-type]
