"""The trade of time for error that a finished search predicts; nothing is measured for it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import pairwise

from tdc_deploy.ranks import milp
from tdc_deploy.ranks.milp import Selected
from tdc_deploy.ranks.table import CostTable, Row, latency
from tdc_deploy.report.data import Point, TradeOff, TrialReport
from tdc_deploy.search import Search
from tdc_deploy.types import Candidate

# Gaps between predicted points that are wider than this share of the dense time are solved for.
GAP = 0.03
SOLVES = 24
SECONDS = 3.0


def trade_off(searches: Sequence[Search]) -> TradeOff | None:
    """The last search's frontier, and what all of them tried, as shares of the source's time; None
    without a search.
    """
    if not searches:
        return None
    trials = []
    for search in searches:
        for tried in search.tried:
            measured = Point(search.share * tried.trial.ratio, tried.trial.error)
            predicted = Point(search.share * tried.predicted, tried.predicted_error)
            if math.isfinite(measured.error):
                trials.append(TrialReport(predicted, measured))
    return TradeOff(frontier(searches[-1]), tuple(dict.fromkeys(trials)))


def frontier(search: Search) -> tuple[Point, ...]:
    """Predicted networks of least error for their time, fastest first, dense last.

    The convex ones come from one pass over the table; the integer program fills wide gaps between them,
    within a bounded time.
    """
    table = search.table
    found = {table.saved_ms(s): table.penalty(s) for s in convex(table)}
    seen: set[tuple[float, float]] = set()
    end = time.monotonic() + SECONDS
    for _ in range(SOLVES):
        gaps = [(b - a, (a, b)) for a, b in pairwise(sorted(found)) if (a, b) not in seen]
        width, gap = max(gaps, default=(0.0, (0.0, 0.0)))
        if width * search.scale <= GAP * search.dense_ms or time.monotonic() > end:
            break
        seen.add(gap)
        selection = milp.least_error(table, table.dense_ms - sum(gap) / 2)
        if selection is not None:
            found[table.saved_ms(selection)] = table.penalty(selection)
    points = [
        Point(search.share * search.predicted_ratio(saved), math.sqrt(search.gain * penalty))
        for saved, penalty in found.items()
    ]
    return tuple(_undominated(points))


def convex(table: CostTable) -> list[Selected]:
    """The selections on the lower convex hull of (time, penalty), dense first: from each layer's own
    hull, the steps of all layers in the order of what they save for their penalty.
    """
    hulls = {name: _hull(row) for name, row in table.rows.items()}
    current: Selected = {name: hull[0] for name, hull in hulls.items()}
    steps = [
        (_slope(table.rows[name], a, b), i, name, b)
        for i, (name, hull) in enumerate(hulls.items())
        for a, b in pairwise(hull)
    ]
    selections = [dict(current)]
    # Within a layer slopes rise, so that its steps come in order.
    for _, _, name, candidate in sorted(steps, key=lambda step: step[:2]):
        current[name] = candidate
        selections.append(dict(current))
    return selections


def _hull(row: Row) -> list[Candidate]:
    """The layer's candidates on its lower convex hull of (time, penalty), from dense to the fastest."""
    hull: list[Candidate] = []
    for candidate in sorted(row.candidates, key=lambda c: (-latency(c), row.penalty(c))):
        if hull and latency(candidate) >= latency(hull[-1]):
            continue
        while hull and row.penalty(candidate) <= row.penalty(hull[-1]):
            hull.pop()
        while len(hull) > 1 and _slope(row, hull[-1], candidate) <= _slope(row, hull[-2], hull[-1]):
            hull.pop()
        hull.append(candidate)
    return hull


def _slope(row: Row, a: Candidate, b: Candidate) -> float:
    return (row.penalty(b) - row.penalty(a)) / (latency(a) - latency(b))


def _undominated(points: list[Point]) -> list[Point]:
    """Fastest first; each of the next has less error."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.ratio, p.error)):
        if not kept or point.error < kept[-1].error:
            kept.append(point)
    return kept
