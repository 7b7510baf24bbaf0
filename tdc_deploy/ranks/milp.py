"""Exactly one candidate per layer: least error within a latency, or least latency within an error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from tdc_deploy.ranks.table import CostTable, latency
from tdc_deploy.types import Candidate

Selected = dict[str, Candidate]

# Ties in the objective go to what costs less of the other quantity.
TIE_BREAK = 1e-4

# Smallest limit that is told from 0, as a share of the largest candidate.
SMALLEST_LIMIT = 1e-6


def least_error(table: CostTable, max_latency_ms: float) -> Selected | None:
    """The selection of least total penalty whose layer latencies sum to at most `max_latency_ms`.

    None if even the fastest is slower.
    """
    penalties, latencies, _ = _columns(table)
    return _solve(
        table, _scaled(penalties) + TIE_BREAK * _scaled(latencies), latencies, max_latency_ms
    )


def least_latency(table: CostTable, max_error: float) -> Selected:
    """The fastest selection whose penalties sum to at most `max_error` >= 0."""
    penalties, latencies, _ = _columns(table)
    selected = _solve(
        table, _scaled(latencies) + TIE_BREAK * _scaled(penalties), penalties, max_error
    )
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


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values / (values.max() or 1.0))


def _solve(
    table: CostTable,
    objective: NDArray[np.float64],
    weights: NDArray[np.float64],
    limit: float,
) -> Selected | None:
    _, _, rows = _columns(table)
    count = len(rows)
    # HiGHS keeps constraints to within 1e-6, absolute: bring the limit to 1, but for one so small
    # that the weights would leave the range that it can handle.
    scale = max(limit, SMALLEST_LIMIT * (weights.max() or 1.0)) if limit < np.inf else 1.0
    one_each = csr_array((np.ones(count), (rows, np.arange(count))))
    result = milp(
        objective,
        integrality=np.ones(count),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(weights[None, :] / scale, -np.inf, limit / scale),
        ],
        options={"mip_rel_gap": 0},
    )
    if result.x is None:
        return None
    chosen = np.flatnonzero(result.x > 0.5)
    candidates = [c for row in table.rows.values() for c in row.candidates]
    return {name: candidates[i] for name, i in zip(table.rows, chosen, strict=True)}
