"""The closed loop: solve on layer times, measure the whole network, correct, solve again.

Layer times measured alone do not add up to the network's, and layer penalties do not add up to the
error of its output. Both models have one factor, which each measurement of a whole network corrects:

    time ratio = 1 − scale · (Σ dense latency − Σ chosen latency) / dense network's latency
    output error² = gain · Σ layer penalties

On a busy machine the layers can seem to save more than the network takes: a ratio is never below 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from tdc_deploy.evaluate import Trial
from tdc_deploy.progress import Progress
from tdc_deploy.ranks.milp import Selected
from tdc_deploy.ranks.table import CostTable

BUDGET_ROUNDS = 5
ERROR_ROUNDS = 8

# Where those for the budget end above it: the fastest selection, and one with what that taught.
FASTEST_ROUNDS = 2

ROUNDS = BUDGET_ROUNDS + FASTEST_ROUNDS + ERROR_ROUNDS

# A measured ratio this far under the budget leaves room to spend on a smaller error.
BUDGET_SLACK = 0.04

# The same for the error limit.
ERROR_SLACK = 0.08

# A network that saves nothing of what its layers save alone leaves this share of the scale.
LEAST_CORRECTION = 0.1

# A prediction further off than this is corrected, and tried again, before it is reported.
PREDICTION_TOLERANCE = 0.1


class Solver(Protocol):
    """Chooses one candidate per layer of a cost table."""

    def within_latency(self, table: CostTable, max_latency_ms: float) -> Selected | None:
        """The best selection that fits, or None if none does."""
        ...

    def within_error(self, table: CostTable, max_error: float) -> Selected:
        """The fastest selection that fits; all dense always does."""
        ...


@dataclass(frozen=True)
class Tried:
    """A selection with the time ratio that was predicted for it, and what was measured.

    `predicted_error` is the relative output error that was predicted.
    """

    selection: Selected
    predicted: float
    trial: Trial
    predicted_error: float = 0.0


@dataclass
class Search:
    """One search over a cost table; `tried` keeps every network that was measured, in order.

    Ratios are shares of the dense network's time `dense_ms`; `share` is that as a share of the source's,
    from which it differs where the network is planned in another precision.
    """

    table: CostTable
    dense_ms: float
    solver: Solver
    evaluate: Callable[[Selected], Trial]
    progress: Progress
    tried: list[Tried] = field(default_factory=list)
    scale: float = 1.0
    gain: float = 1.0
    share: float = 1.0

    def run(self, budget: float | None, max_error: float) -> Tried:
        """The plan for a budget (a share of the dense time; None: as fast as can be) and error limit.

        A plan that meets the error limit is always returned, all dense if nothing else does; one that
        meets the budget too where there is one.
        """
        if budget is not None:
            self._meet_budget(budget)
            if best := self._best_within(budget, max_error):
                return best
        self._meet_error(max_error)
        if budget is not None and (best := self._best_within(budget, max_error)):
            return best
        feasible = [t for t in self.tried if t.trial.error <= max_error]
        return min([*feasible, self._all_dense()], key=_fastest_then_best_predicted)

    def try_selection(self, selection: Selected) -> Tried:
        """Measure a selection, and correct the two factors by what came out."""
        self.progress("measuring whole networks", len(self.tried), ROUNDS)
        saved = self.table.saved_ms(selection)
        predicted = self.predicted_ratio(saved)
        penalty = self.table.penalty(selection)
        predicted_error = math.sqrt(self.gain * penalty)
        trial = self.evaluate(selection)
        if selection == self._all_dense().selection:
            # Against itself, its time would differ from 1 by noise alone.
            trial = replace(trial, ratio=1.0)
        done = Tried(selection, predicted, trial, predicted_error)
        self.tried.append(done)
        if saved > 0:
            scale = (1 - trial.ratio) * self.dense_ms / saved
            self.scale = max(scale, LEAST_CORRECTION * self.scale)
        if penalty > 0 and 0 < done.trial.error < math.inf:
            self.gain = done.trial.error**2 / penalty
        return done

    def _meet_budget(self, budget: float) -> None:
        aim = budget
        for _ in range(BUDGET_ROUNDS):
            selection = self.predicted_within(aim)
            again = bool(self.tried) and self.tried[-1].selection == selection
            done = self.try_selection(selection)
            ratio = done.trial.ratio
            off = abs(done.predicted - ratio) > PREDICTION_TOLERANCE * ratio
            if again or (budget * (1 - BUDGET_SLACK) <= ratio <= budget and not off):
                break
            # Aim at the middle of what is accepted, since the next measurement has its own noise.
            aim = budget * (1 - BUDGET_SLACK / 2)
        if not any(tried.trial.ratio <= budget for tried in self.tried):
            self._try_fastest(aim, budget)

    def _try_fastest(self, aim: float, budget: float) -> None:
        """Layers may save less and less in the network, so that what is aimed at stays out of reach."""
        fastest = self.solver.within_error(self.table, math.inf)
        seen = [tried.selection for tried in self.tried]
        if fastest not in seen and self.try_selection(fastest).trial.ratio <= budget:
            between = self.predicted_within(aim)
            if between not in [*seen, fastest]:
                self.try_selection(between)

    def predicted_ratio(self, saved_ms: float) -> float:
        """The share of the dense time that is left where layers, alone, save this much."""
        return max(0.0, 1 - self.scale * saved_ms / self.dense_ms)

    def predicted_within(self, ratio: float) -> Selected:
        """The best selection that is predicted to take this share of the dense time; where none is, the
        fastest: in the network its layers may save more than alone, and leave room.
        """
        limit = self.table.dense_ms - (1 - ratio) * self.dense_ms / self.scale
        selection = self.solver.within_latency(self.table, limit)
        return self.solver.within_error(self.table, math.inf) if selection is None else selection

    def _best_within(self, budget: float, max_error: float) -> Tried | None:
        """Of what meets both, the least error; the same network may have been tried before and after a
        correction of the prediction.
        """
        return min(
            (t for t in self.tried if t.trial.ratio <= budget and t.trial.error <= max_error),
            key=lambda t: (t.trial.error, abs(t.predicted - t.trial.ratio)),
            default=None,
        )

    def _meet_error(self, max_error: float) -> None:
        """Find the largest sum of layer errors whose network keeps the limit."""
        low, high = 0.0, math.inf
        dense = self._all_dense().selection
        seen = [t.selection for t in self.tried]
        for _ in range(ERROR_ROUNDS):
            limit = self._error_limit(low, high, max_error)
            selection = self.solver.within_error(self.table, limit)
            if selection == dense:
                low = limit
                continue
            error = self.try_selection(selection).trial.error
            total = self.table.penalty(selection)
            if error <= max_error:
                low = max(low, total)
            else:
                high = min(high, total)
            if selection in seen or max_error * (1 - ERROR_SLACK) <= error <= max_error:
                return
            seen.append(selection)

    def _error_limit(self, low: float, high: float, max_error: float) -> float:
        """The sum of layer errors to try next, between one that was kept and one that was not."""
        guess = (max_error * (1 - ERROR_SLACK / 2)) ** 2 / self.gain
        if low < guess < high:
            return guess
        if math.isinf(high):
            return 4 * low
        return math.sqrt(low * high) if low else high / 4

    def _all_dense(self) -> Tried:
        dense = {name: row.candidates[0] for name, row in self.table.rows.items()}
        return Tried(dense, 1.0, Trial(1.0, 0.0))


def first_scale(table: CostTable, dense_ms: float) -> float:
    """The scale before a network was measured: 1, or less if the layers, alone, take longer than all."""
    return min(1.0, dense_ms / table.dense_ms)


def _fastest_then_best_predicted(tried: Tried) -> tuple[float, float]:
    return tried.trial.ratio, abs(tried.predicted - tried.trial.ratio)
