"""From shares to one candidate per layer: the most probable choice that meets the budget as measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tdc_deploy.evaluate import Trial
from tdc_deploy.plan_file import LayerChoice, Plan, PlanFigures
from tdc_deploy.planner import MilpSolver
from tdc_deploy.progress import Progress
from tdc_deploy.ranks.milp import Selected
from tdc_deploy.ranks.table import CostTable
from tdc_deploy.search import Search
from tdc_train.search.space import Space

SOLVER = "haloc"

# No share counts as less: a candidate that the budget forces is then taken whatever its share. Near the end
# of float64: with more, unlikely candidates would be alike, and the fastest of them taken.
LEAST_SHARE = 1e-300

# What is lost here has no limit; the search wants one.
ANY_ERROR = 1e6


def choose(
    space: Space,
    shares: Mapping[str, Sequence[float]],
    budget: float,
    trial: Callable[[Selected], Trial],
    progress: Progress,
) -> Plan:
    """The plan of greatest probability Π p among those whose whole network, measured, meets the budget.

    That is the argmax of each layer if it meets the budget. If it does not, the planner's own loop repairs
    it: an integer program whose penalties are log(p_max / p), networks that are measured, and a correction
    of the layers' times in between.

    Args:
        shares: module path → the candidates' shares, in the space's order.
        budget: share of the dense network's time; if nothing meets it, the fastest found is returned, and
            the plan's `missed` says so.
        trial: time and error of a whole network.
    """
    rows = {}
    for path, row in space.table.rows.items():
        most = max(shares[path])
        penalised = [
            replace(candidate, error=max(0.0, math.log(most / max(share, LEAST_SHARE))))
            for candidate, share in zip(row.candidates, shares[path], strict=True)
        ]
        rows[path] = replace(row, candidates=tuple(penalised))
    table = CostTable(rows)
    chosen_of: dict[int, Trial] = {}

    def plain(selection: Selected) -> Selected:
        """The selection with the candidates as they were measured."""
        return {
            path: space.table.rows[path].candidates[rows[path].candidates.index(c)]
            for path, c in selection.items()
        }

    def evaluate(selection: Selected) -> Trial:
        measured = trial(plain(selection))
        chosen_of[id(selection)] = measured
        return Trial(measured.ratio, math.sqrt(table.penalty(selection)))

    search = Search(table, space.dense_ms, MilpSolver(), evaluate, progress, scale=space.scale)
    best = search.run(budget, ANY_ERROR)
    measured = chosen_of.get(id(best.selection), Trial(1.0, 0.0))
    missed = () if measured.ratio <= budget else (_missed(budget, measured.ratio),)
    return Plan(
        {
            path: LayerChoice(candidate, space.table.rows[path].dense_ms)
            for path, candidate in plain(best.selection).items()
        },
        solver=SOLVER,
        backend=space.backend,
        network=PlanFigures(
            dense_ms=space.dense_ms,
            predicted_ms=best.predicted * space.dense_ms,
            measured_ms=measured.ratio * space.dense_ms,
            error=measured.error,
            verified=True,
        ),
        measurements=space.measurements,
        warnings=missed,
        missed=missed,
    )


def _missed(budget: float, ratio: float) -> str:
    return (
        f"the latency budget of {budget:.3g} was not met: the fastest plan found takes {ratio:.3f} of the "
        "dense time"
    )
