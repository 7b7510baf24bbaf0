"""How much the network's output minds what a layer loses, on its input's side and on its output's.

The square of the network's error that a chain alone makes is nearly what its r_in alone makes, with all
output channels kept, plus what its r_out alone makes, and each grows as a power of the energy lost on that
side. The sides differ several times over at the same loss: channels that the next layer reads are missing
behind a small r_out, while much of what a small r_in loses, the chain's corrected mean and variance give
back. So each side of each layer is measured once, and the power once for the inputs' sides of a network and
once for the outputs': it is about 1 where weights were drawn, and 1.5 to 2.5 where they were trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from tdc_deploy.progress import Progress
from tdc_deploy.ranks.table import CostTable, ErrorsOf, Row
from tdc_deploy.types import Candidate, ConvLayer, Form, Ranks

# A layer whose loss does not show on these inputs is still no free one.
LEAST_ERROR = 1e-3

# A layer that loses less than this share of its energy says nothing: below LEAST_ERROR, the network's error
# would show more than was lost.
LEAST_LOSS = LEAST_ERROR**2

# A network that is this far off, or that puts out NaN, is ruined; how badly makes no difference.
RUINED_ERROR = 10.0

# The power is the median over so many sides of a kind that are measured at a second rank, and within these
# limits; 1 with fewer than FEWEST of them.
SECOND_RANKS = 8
FEWEST = 3
POWERS = (1.0, 2.5)

# Two losses this close to each other say nothing of the power.
APART = 1.2

ErrorOf = Callable[[dict[str, Candidate]], float]
Forms = tuple[Form, ...]

Point = tuple[float, float]
"""The energy that a layer lost, and the square of the network's error."""

# The forms that lose something on a side, and the one that loses nothing on the other.
INPUT: Forms = ("tucker_in", "tucker2")
OUTPUT: Forms = ("tucker_out", "tucker2")
BOTH: Forms = ("svd",)
KINDS = (INPUT, OUTPUT, BOTH)


@dataclass(frozen=True)
class Side:
    """The share of energy that a layer loses at each rank (ascending) of one side, the other kept whole."""

    name: str
    layer: ConvLayer
    forms: Forms
    losses: Mapping[int, float]

    def candidate(self, rank: int) -> Candidate:
        """The layer with this rank, and nothing lost on the other side."""
        return _one_sided(self.layer, self.forms, rank)

    def loss(self, candidate: Candidate) -> float:
        """What a candidate loses on this side."""
        if candidate.ranks is None or candidate.form not in self.forms:
            return 0.0
        return self.losses[_rank(self.forms, candidate.ranks)]

    @property
    def probe(self) -> int | None:
        """The middle of the ranks that lose anything: neither noise nor ruin."""
        losing = self._losing
        return losing[(len(losing) - 1) // 2] if losing else None

    @property
    def second(self) -> int | None:
        """The rank a quarter further, up or down, whose loss differs most from the probe's."""
        losing = self._losing
        if self.probe is None:
            return None
        middle = self.losses[self.probe]

        def apart(rank: int) -> float:
            return abs(math.log(self.losses[rank] / middle))

        found = max((losing[len(losing) // 4], losing[3 * len(losing) // 4]), key=apart)
        return found if apart(found) > math.log(APART) else None

    @property
    def _losing(self) -> list[int]:
        return [rank for rank, loss in self.losses.items() if loss > LEAST_LOSS]


def with_sensitivities(
    table: CostTable, error_of: ErrorOf, errors_of: ErrorsOf, progress: Progress
) -> CostTable:
    """The table with what each candidate adds to the square of the network's output error, estimated from
    networks in which only that layer is compressed, on one side.

    `error_of` gives the relative output error of a selection, `errors_of` what a layer's candidates lose.
    Layers that have nothing to offer but dense and what loses nothing stay as they are.
    """
    sides = [s for name, row in table.rows.items() for s in _sides(name, row, errors_of)]
    twice = _spread(sides)
    measured: list[Point | None] = []
    powers: dict[Forms, list[float]] = {forms: [] for forms in KINDS}
    for done, side in enumerate(sides):
        progress("measuring each layer's part in the error", done, len(sides))
        first = None if side.probe is None else _measured(side, side.probe, error_of)
        measured.append(first)
        if done in twice and first is not None and side.second is not None:
            powers[side.forms] += _power(first, _measured(side, side.second, error_of))
    power = {forms: _typical(found) for forms, found in powers.items()}
    rows = dict(table.rows)
    for side, point in zip(sides, measured, strict=True):
        rows[side.name] = _with_side(rows[side.name], side, point, power[side.forms])
    return CostTable(rows)


def _sides(name: str, row: Row, errors_of: ErrorsOf) -> Iterator[Side]:
    ranks = {
        forms: sorted(
            {_rank(forms, r) for c in row.candidates if c.form in forms and (r := c.ranks)}
        )
        for forms in KINDS
    }
    # Asked for at once: each time may be a factorisation.
    asked = [_one_sided(row.layer, forms, rank) for forms in KINDS for rank in ranks[forms]]
    losses = iter(errors_of(name, asked) if asked else [])
    for forms in KINDS:
        if ranks[forms]:
            yield Side(name, row.layer, forms, {rank: next(losses) for rank in ranks[forms]})


def _one_sided(layer: ConvLayer, forms: Forms, rank: int) -> Candidate:
    if forms is INPUT:
        return Candidate("tucker_in", Ranks(rank, layer.c_out))
    if forms is OUTPUT:
        return Candidate("tucker_out", Ranks(layer.c_in, rank))
    return Candidate("svd", Ranks(rank, rank))


def _rank(forms: Forms, ranks: Ranks) -> int:
    return ranks.r_out if forms is OUTPUT else ranks.r_in


def _spread(sides: Sequence[Side]) -> set[int]:
    """The numbers of those that are measured at a second rank: evenly, at most SECOND_RANKS of a kind."""
    chosen: set[int] = set()
    for forms in KINDS:
        there = [i for i, s in enumerate(sides) if s.forms is forms and s.second is not None]
        chosen.update(there[:: max(1, -(-len(there) // SECOND_RANKS))])
    return chosen


def _measured(side: Side, rank: int, error_of: ErrorOf) -> Point:
    loss = side.losses[rank]
    error = error_of({side.name: replace(side.candidate(rank), error=loss)})
    # A NaN fails the comparison.
    return loss, (max(error, LEAST_ERROR) if error < RUINED_ERROR else RUINED_ERROR) ** 2


def _power(one: Point, other: Point) -> list[float]:
    """That of the loss which the squared error grows with; none where an error is noise or ruin."""
    if not (_is_told(one) and _is_told(other)):
        return []
    return [math.log(other[1] / one[1]) / math.log(other[0] / one[0])]


def _is_told(point: Point) -> bool:
    """Whether the network's error is between noise and ruin."""
    return LEAST_ERROR**2 < point[1] < RUINED_ERROR**2


def _typical(powers: Sequence[float]) -> float:
    if len(powers) < FEWEST:
        return POWERS[0]
    return min(max(median(powers), POWERS[0]), POWERS[1])


def _with_side(row: Row, side: Side, point: Point | None, power: float) -> Row:
    """The row with what its candidates do on a side added to their penalties."""
    lost = {c.decomposition: loss for c in row.candidates if (loss := side.loss(c)) > 0}
    if point is not None:
        loss, error = point
        # Noise and ruin are bounds, which say nothing of what they would grow to.
        power = power if _is_told(point) else 1.0
        most = RUINED_ERROR**2
        lost = {how: min(error * (one / loss) ** power, most) for how, one in lost.items()}
    added = {how: row.penalties.get(how, 0.0) + more for how, more in lost.items()}
    return replace(row, penalties={**row.penalties, **added})
