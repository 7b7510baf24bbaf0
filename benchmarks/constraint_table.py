"""The figures of the benchmark of constraint sets: what trained rows come to, seed by seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.constraint_rows import DENSE, ROWS

Figures = dict[str, Any]
"""Of one network: row → its paper, its sets, and its `seeds`: seed → figures."""


def folder_name(row: str) -> str:
    return row.replace(":", "of")


def figures_of(folders: Mapping[int, Path], names: Iterable[str]) -> Figures:
    """A network's figures.

    Args:
        folders: seed → the folder whose folders are the trained rows.
        names: rows.
    """
    return {
        name: {
            "paper": ROWS[name].paper,
            "sets": list(ROWS[name].sets),
            "seeds": {str(seed): _of_seed(folder, name) for seed, folder in folders.items()},
        }
        for name in names
    }


def _of_seed(folder: Path, name: str) -> dict[str, Any]:
    """A row's figures of one seed; accuracy in points against the dense row of the same seed."""
    read, dense = _read(folder, name), _read(folder, DENSE)
    last, reference = _last(read), _last(dense)
    residuals = [e["admm_final"] for e in read["log"] if "admm_final" in e]
    projected = [s["accuracy"] for n, s in read["stages"].items() if n == "project"]
    return {
        "accuracy": last["accuracy"],
        "accuracy_after_projection": projected[0] if projected else None,
        "points_to_dense": 100 * (last["accuracy"] - reference["accuracy"]),
        "macs_share": last["macs"] / reference["macs"],
        "compression": last["compression"],
        "admm_relative_primal_residuals": residuals,
        # Of the processor: a row takes longer beside other work.
        "cpu_seconds": read["cpu_seconds"],
    }


def _read(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / folder_name(name) / "row.json").read_text()))


def _last(row: dict[str, Any]) -> dict[str, Any]:
    return dict(list(row["stages"].values())[-1])


def joined(known: Figures, found: Figures) -> Figures:
    """The rows of both; of a row in both all seeds, as found where both have one.

    What was known of other sets than today's is dropped.
    """
    rows = {**known, **found}
    for name, row in found.items():
        before = known.get(name, {})
        if before.get("sets") == row["sets"]:
            seeds = {**before["seeds"], **row["seeds"]}
            rows[name] = {**row, "seeds": dict(sorted(seeds.items(), key=lambda s: int(s[0])))}
    return {name: rows[name] for name in ROWS if name in rows}


def print_rows(network: str, found: Figures) -> None:
    """Means over the seeds, with the least and the most of the points."""
    print(f"\n{network}")
    print(
        f"{'':16}{'seeds':>6}{'size':>8}{'MACs':>8}{'projected':>11}{'tuned':>9}{'points':>26}  paper"
    )
    for name, row in found.items():
        runs = list(row["seeds"].values())
        after = "" if name == DENSE else f"{100 * _mean(runs, 'accuracy_after_projection'):.2f}%"
        points = [run["points_to_dense"] for run in runs]
        span = f"{fmean(points):+.2f} ({min(points):+.2f} to {max(points):+.2f})"
        print(
            f"{name:16}{len(runs):6}{1 / _mean(runs, 'compression'):8.3f}{_mean(runs, 'macs_share'):8.3f}"
            f"{after:>11}{100 * _mean(runs, 'accuracy'):8.2f}%{span:>28}  {row['paper']}"
        )


def _mean(runs: list[dict[str, Any]], name: str) -> float:
    return fmean(run[name] for run in runs)
