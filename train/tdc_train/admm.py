"""ADMM: training pulls each weight towards a constraint set that is known by its projection.

Source: S. Boyd et al., "Distributed Optimization and Statistical Learning via the Alternating Direction
Method of Multipliers" (2011), section 3; the order of the updates is that of TDC's authors (PPoPP 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_deploy.types import check_number
from tdc_train.projections.protocol import Projection, WarmProjection

VALID_BELOW = 0.1
"""An ADMM result is valid only if the relative primal residual ends below this."""

PULL = 15.0
"""ρ times the sum of all effective learning rates. The ImageNet training of TDC's authors has 31 (ρ 0.001,
900,000 steps from a rate of 0.01, momentum 0.9); 14 left a ResNet-20 on 5,000 images a primal residual of
0.006.
"""


def scaled_rho(rates: float) -> float:
    """ρ for a training by SGD whose effective learning rates, lr / (1 − momentum), sum to `rates`.

    The penalty alone would shrink W − Z + U by exp(−ρ · lr / (1 − momentum)) a step: it is the product of ρ
    and the sum that says whether anything reaches the set. One for a million steps does nothing in 1,000.
    It is a start, not a promise: whether it was enough `Residuals.valid` tells.

    Raises:
        TdcError: rates is not above 0.
    """
    check_number("rates", rates, positive=True)
    return PULL / rates


@dataclass(frozen=True)
class Residuals:
    """How far ADMM is from its end: primal is ‖W−Z‖/‖W‖ over all weights, dual ρ‖Z−Z_before‖."""

    primal: float
    dual: float

    @property
    def valid(self) -> bool:
        """True if the weights are near enough to their sets to be decomposed."""
        return self.primal < VALID_BELOW


class Admm:
    """A regulariser of the training loop: `start_epoch` before an epoch's batches, `penalty` in each.

    Start: Z = Proj(W), U = 0. Each epoch: Z = Proj(W+U), then U += W−Z. Each batch: the loss gets
    Σ ρ/2·‖W−Z+U‖². Under torch.distributed each layer is projected by one process, and Z broadcast; as
    the weights are the same everywhere, so is all else.

    Args:
        weights: name → the parameter; they are read, never written.
        projections: name → the set, for the same names.
        rho: ρ; `scaled_rho` gives one.

    Raises:
        TdcError: other names on one side, none at all, or ρ not positive.
    """

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        projections: Mapping[str, Projection],
        rho: float,
    ) -> None:
        check_number("rho", rho, positive=True)
        if not weights:
            raise TdcError("ADMM without a weight", expected="a plan that decomposes some layer")
        lone = sorted(set(weights) ^ set(projections))
        if lone:
            raise TdcError(f"{lone[0]!r} has only a weight or only a projection", expected="both")
        self._weights = dict(weights)
        self._projections = dict(projections)
        self._rho = float(rho)
        self._z: dict[str, Tensor] = {}
        self._u: dict[str, Tensor] = {}
        self._dual = 0.0

    @torch.no_grad()
    def start_epoch(self) -> dict[str, float]:
        """Update Z and U; figures for the log: the residuals, before the epoch's batches.

        Raises:
            TdcError: a weight is not finite.
        """
        self._check_finite()
        if not self._z:
            # Proj(W+U) with U = 0 is this again.
            self._start()
        else:
            before = self._z
            self._z = self._project_all()
            moved = sum(_energy(self._z[name] - before[name]) for name in self._z)
            self._dual = self._rho * moved**0.5
        for name, weight in self._weights.items():
            self._u[name] = self._u[name] + weight - self._z[name]
        residuals = self.residuals()
        return {"admm_primal": residuals.primal, "admm_dual": residuals.dual}

    def penalty(self) -> Tensor:
        """Σ ρ/2·‖W−Z+U‖², a scalar to add to a batch's loss."""
        if not self._z:
            self._check_finite()
            self._start()
        terms = [
            (weight - self._z[name] + self._u[name]).square().sum()
            for name, weight in self._weights.items()
        ]
        device = terms[0].device
        return self._rho / 2 * torch.stack([term.to(device) for term in terms]).sum()

    @torch.no_grad()
    def residuals(self) -> Residuals:
        """The residuals now: of the weights as they are, and of the last update of Z."""
        if not self._z:
            self._start()
        apart = sum(_energy(weight - self._z[name]) for name, weight in self._weights.items())
        total = sum(_energy(weight) for weight in self._weights.values())
        return Residuals((apart / total) ** 0.5 if total else 0.0, self._dual)

    @torch.no_grad()
    def layer_residuals(self) -> dict[str, float]:
        """Name → ‖W−Z‖/‖W‖ of each weight."""
        if not self._z:
            self._start()
        return {
            name: (_energy(weight - self._z[name]) / (_energy(weight) or 1.0)) ** 0.5
            for name, weight in self._weights.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Z, U and what the log needs; with the weights, all that a resumed run needs."""
        return {"rho": self._rho, "z": dict(self._z), "u": dict(self._u), "dual": self._dual}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`'s value.

        Raises:
            TdcError: it belongs to other weights.
        """
        for part in ("z", "u"):
            shapes = {name: value.shape for name, value in state[part].items()}
            mine = {name: weight.shape for name, weight in self._weights.items()}
            if shapes and shapes != mine:
                raise TdcError(
                    "the ADMM state is of other layers, or of other shapes",
                    expected=f"the {len(mine)} layers of this plan",
                )
        self._rho, self._dual = float(state["rho"]), float(state["dual"])
        self._z, self._u = (
            {name: value.clone().to(self._weights[name]) for name, value in state[part].items()}
            for part in ("z", "u")
        )

    def _start(self) -> None:
        with torch.no_grad():
            self._u = {name: torch.zeros_like(weight) for name, weight in self._weights.items()}
            self._z = self._project_all()

    def _project_all(self) -> dict[str, Tensor]:
        """Proj(W+U) of every weight, computed by one process each."""
        if not (dist.is_available() and dist.is_initialized()):
            return {name: self._project(name) for name in self._weights}
        owners = share_out(
            {name: _cost(w) for name, w in self._weights.items()}, dist.get_world_size()
        )
        projected = {}
        for name, weight in self._weights.items():
            mine = owners[name] == dist.get_rank()
            empty = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
            # Memory is broadcast as it lies: all processes must lay it out alike.
            projected[name] = self._project(name).contiguous() if mine else empty
        for name, owner in owners.items():
            dist.broadcast(projected[name], src=owner)
        return projected

    def _project(self, name: str) -> Tensor:
        projection, target = self._projections[name], self._weights[name].detach() + self._u[name]
        if name in self._z and isinstance(projection, WarmProjection):
            return projection.near(target, self._z[name])
        return projection(target)

    def _check_finite(self) -> None:
        for name, weight in self._weights.items():
            if not torch.isfinite(weight).all():
                raise TdcError(
                    f"the weight of {name!r} holds NaN or infinity",
                    fix="go on from the last checkpoint with a lower learning rate or rho",
                )


def share_out(costs: Mapping[str, float], processes: int) -> dict[str, int]:
    """Name → process, the dearest first, each to the one with least to do; the same everywhere."""
    load = [0.0] * processes
    owners = {}
    for name in sorted(costs, key=lambda name: (-costs[name], name)):
        owners[name] = load.index(min(load))
        load[owners[name]] += costs[name]
    return owners


def _cost(weight: Tensor) -> float:
    """About what a projection takes: products of the kernel with a basis as wide as its channels."""
    return float(weight.numel() * sum(weight.shape[:2]))


def _energy(tensor: Tensor) -> float:
    return float(tensor.detach().square().sum(dtype=torch.float64))
