"""TDC's own rule (Xiang et al., PPoPP 2023): a FLOPs budget per layer, met at the least time."""

from __future__ import annotations

import numpy as np

from tdc_deploy.ranks.candidates import TDC_STEP
from tdc_deploy.ranks.milp import Selected
from tdc_deploy.ranks.table import CostTable, Row, latency
from tdc_deploy.types import Candidate

THETA = 0.15
"""A layer whose time falls by less than this share stays dense."""

BUDGETS = np.linspace(1, 0.02, 50)
"""The FLOPs budgets that are tried where another limit is given, largest first."""


def tdc_rule(table: CostTable, flops_budget: float, theta: float = THETA) -> Selected:
    """Every layer's fastest Tucker-2 candidate among the largest that meet the FLOPs budget.

    `flops_budget` is the share of each layer's arithmetic that may remain, in (0, 1]. Largest: no
    other candidate in the budget has both ranks at least as large.
    """
    return {name: _choose(row, flops_budget, theta) for name, row in table.rows.items()}


def tdc_within(table: CostTable, max_latency_ms: float, theta: float = THETA) -> Selected | None:
    """The rule at the largest FLOPs budget whose layer latencies sum to at most `max_latency_ms`."""
    for budget in BUDGETS:
        selected = tdc_rule(table, float(budget), theta)
        if _total_latency(selected) <= max_latency_ms:
            return selected
    return None


def tdc_within_error(table: CostTable, max_error: float, theta: float = THETA) -> Selected:
    """The fastest that the rule gives, at any FLOPs budget, whose penalties sum to at most `max_error`."""
    dense = {name: row.candidates[0] for name, row in table.rows.items()}
    selections = [dense, *(tdc_rule(table, float(budget), theta) for budget in BUDGETS)]
    fitting = [s for s in selections if table.penalty(s) <= max_error]
    return min(fitting, key=_total_latency)


def _total_latency(selected: Selected) -> float:
    return sum(latency(candidate) for candidate in selected.values())


def _choose(row: Row, flops_budget: float, theta: float) -> Candidate:
    dense = row.candidates[0]
    limit = flops_budget * row.macs(dense)
    meeting = [c for c in row.candidates[1:] if _on_grid(row, c) and row.macs(c) <= limit]
    largest = [c for c in meeting if not any(_contains(other, c) for other in meeting)]
    if not largest:
        return dense
    fastest = min(largest, key=latency)
    return fastest if latency(fastest) <= (1 - theta) * row.dense_ms else dense


def _on_grid(row: Row, candidate: Candidate) -> bool:
    """In steps of 32, or of any size in layers too narrow for that."""
    if candidate.form != "tucker2" or candidate.ranks is None:
        return False
    pairs = ((candidate.ranks.r_in, row.layer.c_in), (candidate.ranks.r_out, row.layer.c_out))
    return all(rank % TDC_STEP == 0 or channels <= 2 * TDC_STEP for rank, channels in pairs)


def _contains(other: Candidate, candidate: Candidate) -> bool:
    a, b = other.ranks, candidate.ranks
    assert a is not None and b is not None
    return a != b and a.r_in >= b.r_in and a.r_out >= b.r_out
