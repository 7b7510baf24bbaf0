"""The predicted frontier, against every selection there is."""

from __future__ import annotations

import itertools
import math
from typing import NoReturn

import numpy as np
import pytest

from tdc_deploy.evaluate import Trial
from tdc_deploy.planner import MilpSolver
from tdc_deploy.progress import silent
from tdc_deploy.ranks.milp import Selected
from tdc_deploy.ranks.table import CostTable
from tdc_deploy.report import tradeoff
from tdc_deploy.report.tradeoff import convex, frontier, trade_off
from tdc_deploy.search import Search
from tests.ranks.tables import random_table

# Sums in another order.
ROUNDING = 1e-9


def unmeasured(_: Selected) -> NoReturn:
    raise AssertionError("a report measures nothing")


def search_of(table: CostTable, scale: float = 1.2, gain: float = 0.3) -> Search:
    search = Search(table, 1.25 * table.dense_ms, MilpSolver(), unmeasured, silent)
    search.scale, search.gain = scale, gain
    return search


def every_selection(table: CostTable) -> list[tuple[float, float]]:
    """(saved ms, penalty) of all."""
    names = list(table.rows)
    choices = itertools.product(*(row.candidates for row in table.rows.values()))
    selections = (dict(zip(names, choice, strict=True)) for choice in choices)
    return [(table.saved_ms(s), table.penalty(s)) for s in selections]


@pytest.mark.parametrize("seed", range(4))
def test_every_point_is_the_least_error_for_its_time(seed: int) -> None:
    table = random_table(np.random.default_rng(seed), 3, 5)
    search = search_of(table)
    points = frontier(search)
    assert len(points) >= 5
    for point in points:
        saved = (1 - point.ratio) * search.dense_ms / search.scale
        penalty = point.error**2 / search.gain
        least = min(p for s, p in every_selection(table) if s >= saved - ROUNDING)
        assert abs(penalty - least) <= ROUNDING


@pytest.mark.parametrize("seed", range(4))
def test_the_convex_points_are_the_hull(seed: int) -> None:
    table = random_table(np.random.default_rng(seed), 3, 5)
    everything = every_selection(table)
    for selection in convex(table):
        saved, penalty = table.saved_ms(selection), table.penalty(selection)
        # On the hull: for some price of time, no selection is better.
        slopes = [(p - penalty) / (s - saved) for s, p in everything if s > saved + ROUNDING]
        price = min(slopes, default=math.inf)
        if math.isfinite(price):
            assert all(p - price * s >= penalty - price * saved - ROUNDING for s, p in everything)


def test_it_goes_from_the_fastest_to_dense() -> None:
    table = random_table(np.random.default_rng(0), 4, 6)
    search = search_of(table)
    points = frontier(search)
    most = max(saved for saved, _ in every_selection(table))
    assert abs(points[0].ratio - (1 - search.scale * most / search.dense_ms)) <= ROUNDING
    assert (points[-1].ratio, points[-1].error) == (1.0, 0.0)
    ratios = [point.ratio for point in points]
    assert ratios == sorted(ratios)


def test_a_large_table_is_not_solved_for_longer_than_agreed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tradeoff, "SECONDS", 0.0)
    monkeypatch.setattr("tdc_deploy.ranks.milp.least_error", unmeasured)
    assert len(frontier(search_of(random_table(np.random.default_rng(0), 100, 20)))) > 100


def test_trials_carry_what_was_predicted_for_them() -> None:
    table = random_table(np.random.default_rng(0), 4, 6)
    search = Search(table, table.dense_ms, MilpSolver(), lambda _: Trial(0.6, 0.2), silent)
    selection = search.solver.within_error(table, 0.5)
    search.try_selection(selection)
    search.try_selection(selection)
    found = trade_off([search])
    assert found is not None
    first, second = found.trials
    assert abs(first.predicted.error - math.sqrt(table.penalty(selection))) <= ROUNDING
    # Corrected by the first: now it is known.
    assert abs(second.predicted.error - 0.2) <= ROUNDING
    assert abs(second.predicted.ratio - 0.6) <= ROUNDING


def test_networks_that_were_ruined_are_not_drawn() -> None:
    table = random_table(np.random.default_rng(0), 2, 3)
    search = Search(table, table.dense_ms, MilpSolver(), lambda _: Trial(0.6, math.nan), silent)
    search.try_selection(search.solver.within_error(table, 0.5))
    found = trade_off([search])
    assert found is not None
    assert found.trials == ()


def test_without_a_search_there_is_none() -> None:
    assert trade_off([]) is None


def test_no_point_takes_less_than_no_time() -> None:
    points = frontier(search_of(random_table(np.random.default_rng(0), 4, 6), scale=50.0))
    assert points[0].ratio == 0
    assert all(a.ratio < b.ratio for a, b in itertools.pairwise(points))
