"""Exactly one candidate per layer: least error within a latency, or least latency within an error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from tdc_deploy.native_output import to_stderr
from tdc_deploy.ranks.table import CostTable, latency
from tdc_deploy.types import Candidate

Selected = dict[str, Candidate]

# Ties in latency go to what loses less.
TIE_BREAK = 1e-4

# Solutions of HiGHS are exact to about 1e-6 of the largest coefficient. Each one bounds what a candidate
# of a better solution can cost, so that the next has smaller coefficients.
REFINEMENTS = 5


def least_error(table: CostTable, max_latency_ms: float) -> Selected | None:
    """The selection of least total penalty whose layer latencies sum to at most `max_latency_ms`; of
    several, the fastest. None if even the fastest is slower.
    """
    penalties, latencies, _ = _columns(table)
    best, allowed = None, np.ones(len(penalties), bool)
    for _ in range(REFINEMENTS):
        found = _solve(table, _scaled(penalties, allowed), latencies, max_latency_ms, allowed)
        if found is None or (best is not None and table.penalty(found) >= table.penalty(best)):
            break
        best, allowed = found, penalties <= table.penalty(found)
    return None if best is None else least_latency(table, table.penalty(best))


def least_latency(table: CostTable, max_error: float) -> Selected:
    """The fastest selection whose penalties sum to at most `max_error` >= 0."""
    penalties, latencies, _ = _columns(table)
    allowed = penalties <= max_error
    objective = _scaled(latencies, allowed) + TIE_BREAK * _scaled(penalties, allowed)
    selected = _solve(table, objective, penalties, max_error, allowed)
    assert selected is not None, "dense has no error and always fits"
    return selected


def _columns(
    table: CostTable,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Penalty, latency and row number of every candidate of every layer."""
    entries = [
        (row.penalty(c), latency(c), i)
        for i, row in enumerate(table.rows.values())
        for c in row.candidates
    ]
    penalties, latencies, rows = zip(*entries, strict=True)
    return np.array(penalties), np.array(latencies), np.array(rows)


def _scaled(values: NDArray[np.float64], allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The allowed candidates' values with the largest as 1, the others' as 0."""
    kept = np.where(allowed, values, 0.0)
    return np.asarray(kept / (kept.max() or 1.0))


def _solve(
    table: CostTable,
    objective: NDArray[np.float64],
    weights: NDArray[np.float64],
    limit: float,
    allowed: NDArray[np.bool_],
) -> Selected | None:
    """Minimise the objective over the allowed candidates whose weights sum to at most `limit`."""
    _, _, rows = _columns(table)
    count = len(rows)
    kept = np.where(allowed, weights, 0.0)
    # Constraints are kept to within 1e-6, absolute: bring the limit to 1.
    scale = limit if 0 < limit < np.inf else 1.0
    one_each = csr_array((np.ones(count), (rows, np.arange(count))))
    with to_stderr():
        result = milp(
            objective,
            integrality=np.ones(count),
            bounds=Bounds(0, allowed.astype(np.float64)),
            constraints=[
                LinearConstraint(one_each, 1, 1),
                LinearConstraint(kept[None, :] / scale, -np.inf, limit / scale),
            ],
            options={"mip_rel_gap": 0},
        )
    if result.x is None:
        return None
    chosen = np.flatnonzero(result.x > 0.5)
    candidates = [c for row in table.rows.values() for c in row.candidates]
    return {name: candidates[i] for name, i in zip(table.rows, chosen, strict=True)}
