"""What a search chooses from: each layer's candidates with their measured times, by module path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tdc_deploy.ranks.table import CostTable, Row
from tdc_deploy.types import Candidate, ConvLayer, Ranks


@dataclass(frozen=True)
class Space:
    """The layers that have a faster candidate, dense first in each row.

    `dense_ms` is the dense network's own time; `scale` is what a network was found to save of the sum that
    its layers, measured alone, save. `measurements` had to be taken.
    """

    table: CostTable
    dense_ms: float
    scale: float
    backend: Mapping[str, str]
    measurements: int

    @property
    def candidates(self) -> dict[str, tuple[Candidate, ...]]:
        """Module path → its candidates."""
        return {path: row.candidates for path, row in self.table.rows.items()}


def space_to_plain(space: Space) -> dict[str, Any]:
    """Plain values, for a checkpoint: a resumed search must not choose by times measured anew."""
    rows = {
        path: {"layer": asdict(row.layer), "candidates": [asdict(c) for c in row.candidates]}
        for path, row in space.table.rows.items()
    }
    return {
        "rows": rows,
        "dense_ms": space.dense_ms,
        "scale": space.scale,
        "backend": dict(space.backend),
        "measurements": space.measurements,
    }


def space_from_plain(data: Mapping[str, Any]) -> Space:
    """The inverse of `space_to_plain`."""
    rows = {
        path: Row(ConvLayer(**row["layer"]), tuple(map(_candidate, row["candidates"])))
        for path, row in data["rows"].items()
    }
    return Space(CostTable(rows), **{key: data[key] for key in data if key != "rows"})


def _candidate(data: Mapping[str, Any]) -> Candidate:
    ranks = data["ranks"]
    return Candidate(**{**data, "ranks": None if ranks is None else Ranks(**ranks)})
