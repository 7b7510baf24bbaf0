"""Take back of a plan's engine what makes it slower: `revert` with engines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from onnx import ModelProto

from tdc_deploy.backends.tensorrt.engine import Engine
from tdc_deploy.backends.tensorrt.prepare import Prepared
from tdc_deploy.compress import last_node
from tdc_deploy.engine_forms import REVERTED, Built, Workshop
from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import Plan
from tdc_deploy.planned_networks import PlannedNetworks
from tdc_deploy.profiling.measure import FINAL, Effort
from tdc_deploy.revert import PLANNED, Reverted, revert
from tdc_deploy.runtime.cuda import check_context
from tdc_deploy.types import Ratio


def take_back(
    workshop: Workshop,
    networks: PlannedNetworks,
    planned: Built,
    plan: Plan | None,
    max_error: float,
    exact: Collection[str] = (),
) -> Built | None:
    """The engine without what makes the planned one slower, or None if nothing does within `max_error`.

    The nodes `exact` stay float32.
    """
    # Without its only chain it is the native form, without its only layer the source.
    fused = planned.prepared.fused if len(planned.prepared.fused) > 1 else ()
    layers = _least_gain_first(plan)
    trials = _Trials(workshop, networks, planned, max_error, exact)
    kept = revert(_ordered(fused, layers), layers if len(layers) > 1 else (), trials.compare)
    if kept == PLANNED:
        return None
    return workshop.measured(REVERTED, *trials.made[kept], kept)


class _Trials:
    """Engines with some of a plan taken back; each is built once.

    Only those that may be asked for again are kept, without their models: each is as large as the network.
    """

    def __init__(
        self,
        workshop: Workshop,
        networks: PlannedNetworks,
        planned: Built,
        max_error: float,
        exact: Collection[str],
    ) -> None:
        self._workshop = workshop
        self._networks = networks
        self._max_error = max_error
        self._exact = exact
        self._base = PLANNED
        self.made: dict[Reverted, tuple[Prepared, Engine]] = {
            PLANNED: (planned.prepared, planned.engine)
        }

    def compare(
        self, base: Reverted, others: Sequence[Reverted], effort: Effort
    ) -> list[Ratio | None]:
        """Build all of them, then measure each against the base; verify it before a final measurement."""
        self._start(base)
        for done, back in enumerate(others):
            self._workshop.progress("building engines with chains taken back", done, len(others))
            if back not in self.made:
                self._make(back)
        found = []
        for done, back in enumerate(others):
            self._workshop.progress("comparing engines", done, len(others))
            found.append(self._ratio(base, back, effort))
        for back, ratio in zip(others, found, strict=True):
            if ratio is None or not ratio.upper < 1:
                self.made.pop(back, None)
        return found

    def _start(self, base: Reverted) -> None:
        """Drop what an earlier round has left, once there is another base."""
        if base != self._base:
            self.made = {base: self.made[base]}
            self._base = base

    def _make(self, back: Reverted) -> None:
        try:
            prepared = self._workshop.prepare(self._networks.planned(back), self._exact)
            engine = self._workshop.build(prepared)
            self.made[back] = replace(prepared, model=ModelProto()), engine
        except TdcError as error:
            check_context("building an engine with chains taken back", error)
            return  # what cannot be built is no way to be faster

    def _ratio(self, base: Reverted, back: Reverted, effort: Effort) -> Ratio | None:
        if back not in self.made:
            return None
        engine = self.made[back][1]
        try:
            if effort is FINAL and not self._verified(engine):
                return None
            return self._workshop.ratio(self.made[base][1], engine, effort)
        except RuntimeError as error:
            check_context("an engine with chains taken back", error)
            return None

    def _verified(self, engine: Engine) -> bool:
        return self._workshop.verify(engine, REVERTED).error <= self._max_error


def _least_gain_first(plan: Plan | None) -> list[str]:
    """The plan's layers, those first whose time alone fell least."""
    if plan is None:
        return []
    shares = {}
    for name, candidate in plan.selection.items():
        dense_ms = plan.layers[name].dense_ms
        known = candidate.latency_ms is not None and dense_ms is not None
        shares[name] = candidate.latency_ms / dense_ms if known else 1.0  # type: ignore[operator]
    return sorted(shares, key=lambda name: -shares[name])


def _ordered(fused: Sequence[str], layers: Sequence[str]) -> list[str]:
    """The operators in the order of their layers; others, which no plan measured, come first."""
    order = {last_node(name): i for i, name in enumerate(layers)}
    return sorted(fused, key=lambda name: order.get(name, -1))
