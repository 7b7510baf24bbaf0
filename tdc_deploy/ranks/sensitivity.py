"""How much the network's output minds what a layer loses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tdc_deploy.progress import Progress
from tdc_deploy.ranks.table import CostTable, Row
from tdc_deploy.types import Candidate

# A layer whose loss does not show on these inputs is still no free one.
LEAST_ERROR = 1e-3

# A layer that loses less than this share of its energy says nothing: below LEAST_ERROR, the network's error
# would show more than was lost.
LEAST_LOSS = LEAST_ERROR**2

# A network that is this far off, or that puts out NaN, is ruined; how badly makes no difference.
RUINED_ERROR = 10.0


def with_sensitivities(
    table: CostTable, error_of: Callable[[dict[str, Candidate]], float], progress: Progress
) -> CostTable:
    """The table with each row's sensitivity measured: the squared output error of the network in which
    only that layer is compressed, over the energy that the layer lost.

    `error_of` gives the relative output error of a selection. Layers that have nothing to offer
    but dense and what loses nothing keep sensitivity 1.
    """
    rows = dict(table.rows)
    for done, (name, row) in enumerate(table.rows.items()):
        progress("measuring each layer's part in the error", done, len(table.rows))
        probe = _probe(row)
        if probe is not None:
            error = error_of({name: probe})
            # A NaN fails the comparison.
            error = max(error, LEAST_ERROR) if error < RUINED_ERROR else RUINED_ERROR
            rows[name] = replace(row, sensitivity=error**2 / probe.error)
    return CostTable(rows)


def _probe(row: Row) -> Candidate | None:
    """The candidate of the median error among those that lose anything: neither noise nor ruin."""
    losing = sorted((c for c in row.candidates if c.error > LEAST_LOSS), key=lambda c: c.error)
    return losing[len(losing) // 2] if losing else None
