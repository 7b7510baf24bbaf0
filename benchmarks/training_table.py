"""The training benchmark's table: accuracy of each arm, and its difference to the dense network's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.training_arms import ARMS

FINAL = "final"


def summary(
    folder: Path, seeds: list[int], arms: list[str], times: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    """All figures of one network."""
    reference = {seed: _right(folder, seed, "dense")[FINAL] for seed in seeds}
    found: dict[str, Any] = {}
    for arm in arms:
        rights = {seed: _right(folder, seed, arm) for seed in seeds}
        found[arm] = {
            stage: _accuracy([rights[s][stage] for s in seeds], [reference[s] for s in seeds])
            for stage in rights[seeds[0]]
        }
        rows = [_row(folder, seed, arm) for seed in seeds]
        last = list(rows[0]["stages"].values())[-1]
        found[arm]["macs"], found[arm]["parameters"] = last["macs"], last["parameters"]
        residuals = [e["admm_final"] for row in rows for e in row["log"] if "admm_final" in e]
        if residuals:
            found[arm]["admm_relative_primal_residual"] = residuals
        found[arm]["seconds"] = [sum(e.get("seconds", 0) for e in row["log"]) for row in rows]
    plan = json.loads((folder / "plan.json").read_text())
    chosen = ("budget", "layers", "network", "solver", "backend")
    return {
        "seeds": seeds,
        "arms": found,
        "plan": {key: plan[key] for key in chosen},
        "time": {str(seed): value for seed, value in times.items()},
        "recipes": {arm: _stages(folder, seeds[0], arm) for arm in arms},
    }


def _row(folder: Path, seed: int, arm: str) -> dict[str, Any]:
    return dict(json.loads((folder / f"seed{seed}" / arm / "row.json").read_text()))


def _stages(folder: Path, seed: int, arm: str) -> list[dict[str, Any]]:
    """The arm's stages; their teacher is the dense network, wherever it lay."""
    stages = _row(folder, seed, arm)["recipe"]["stages"]
    for stage in stages:
        if "distill" in stage:
            stage["distill"]["teacher"] = "dense"
    return list(stages)


def _right(folder: Path, seed: int, arm: str) -> dict[str, NDArray[np.bool_]]:
    """Which test images each stage's model had right, the last one's as `final`."""
    stages = _row(folder, seed, arm)["stages"]
    found = {}
    for name, figures in stages.items():
        file = folder / f"seed{seed}" / arm / "stages" / f"{name}.right.npy"
        bits = np.unpackbits(np.load(file), count=figures["images"])
        found[name] = bits.astype(bool)
    *_, last = found
    found[FINAL] = found.pop(last)
    return found


def _accuracy(
    rights: list[NDArray[np.bool_]], references: list[NDArray[np.bool_]]
) -> dict[str, Any]:
    """Mean accuracy over the seeds, and the difference to the dense network on the same images.

    The interval is normal, over the images, each with its mean over the seeds, which share the images. It
    says how sure these networks' difference is, not that of others; the seeds' own stand beside.
    """
    differences = np.stack(rights).astype(float) - np.stack(references)
    images = differences.mean(0)
    half = 1.96 * images.std(ddof=1) / np.sqrt(len(images))
    mean = float(images.mean())
    return {
        "accuracy": float(np.stack(rights).mean()),
        "by_seed": [float(right.mean()) for right in rights],
        "difference": mean,
        "interval": [mean - half, mean + half],
        "difference_by_seed": differences.mean(1).tolist(),
    }


def print_table(network: str, found: dict[str, Any]) -> None:
    dense = found["arms"]["dense"]["macs"] if "dense" in found["arms"] else None
    print(f"\n{network}: seeds {found['seeds']}")
    for arm, figures in found["arms"].items():
        final = figures[FINAL]
        low, high = final["interval"]
        share = "" if dense is None else f"  {figures['macs'] / dense:.3f} of MACs"
        print(
            f"{ARMS[arm]:50} {100 * final['accuracy']:.2f}%  {100 * final['difference']:+.2f} "
            f"({100 * low:+.2f} to {100 * high:+.2f}){share}"
        )
        for stage, before in figures.items():
            if isinstance(before, dict) and stage != FINAL:
                print(f"    after {stage:42} {100 * before['accuracy']:.2f}%")
    for seed, time in found["time"].items():
        value, low, high = time["ratio"]
        print(f"time, seed {seed}: {value:.3f} ({low:.3f} to {high:.3f}) of dense")
