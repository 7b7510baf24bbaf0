"""The time that a choice is expected to take, and what being above the budget costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tdc_deploy.ranks.table import latency
from tdc_train.search.space import Space


@dataclass(frozen=True)
class ExpectedTime:
    """A network's time as a share of the dense network's, from its layers' measured times.

        1 − scale · Σ_layers Σ_i p_i · (dense_ms − ms_i) / network_ms

    Args:
        saved_ms: layer → [candidates], what each saves of the dense layer's time, float64.
        network_ms: the dense network's own time.
        scale: what a network saves of the sum that its layers, measured alone, save.
    """

    saved_ms: Mapping[str, Tensor]
    network_ms: float
    scale: float = 1.0

    def __call__(self, shares: Mapping[str, Tensor]) -> Tensor:
        """A scalar; `shares` are each layer's [candidates]."""
        saved = [(shares[name].double() * ms).sum() for name, ms in self.saved_ms.items()]
        return 1 - self.scale * torch.stack(saved).sum() / self.network_ms


def expected_time(space: Space, device: torch.device | None = None) -> ExpectedTime:
    """The expected time of a space's shares."""
    saved = {
        path: torch.tensor(
            [row.dense_ms - latency(c) for c in row.candidates],
            dtype=torch.float64,
            device=device,
        )
        for path, row in space.table.rows.items()
    }
    return ExpectedTime(saved, space.dense_ms, space.scale)


def mean_entropy(shares: Mapping[str, Tensor]) -> Tensor:
    """The mean of the layers' entropies in nats, a scalar."""
    return torch.stack([torch.special.entr(p).sum() for p in shares.values()]).mean()


class BudgetPenalty:
    """An augmented Lagrangian of log(time / budget) ≤ 0.

    A fixed λ leaves the end to luck: too small misses the budget, too large gives accuracy away. Here a
    multiplier grows while the expected time is above the budget and shrinks while it is below, so that at
    rest the budget is met exactly, or not binding. The log makes it the same for every unit, network and
    size of budget.

    Source: J. Nocedal and S. J. Wright, "Numerical Optimization" (2006), section 17.3 and equation 17.65;
    there the multiplier is updated after each minimisation, here a little after each step.

    Args:
        budget: share of the dense network's time.
        pressure: the penalty's second derivative in the log of the time.
    """

    def __init__(self, budget: float, pressure: float) -> None:
        self.budget = budget
        self.pressure = pressure
        self.multiplier = 0.0

    def __call__(self, time: Tensor) -> Tensor:
        """(max(0, μ + ρg)² − μ²) / 2ρ, a scalar, with g = log(time / budget) and μ the multiplier."""
        pull = torch.clamp(self.multiplier + self.pressure * self._excess(time), min=0)
        return (pull.square() - self.multiplier**2) / (2 * self.pressure)

    def update(self, time: float, share: float) -> None:
        """Move the multiplier by `share` of a full update."""
        excess = math.log(max(time, 1e-6) / self.budget)
        self.multiplier = max(0.0, self.multiplier + share * self.pressure * excess)

    def _excess(self, time: Tensor) -> Tensor:
        # A time of 0 or less can only be a wrong prediction.
        return torch.log(torch.clamp(time, min=1e-6) / self.budget)
