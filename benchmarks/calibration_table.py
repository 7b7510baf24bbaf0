"""The calibration benchmark's figures over the draws of calibration images, and its table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = {
    "plain": "plain Tucker (HOOI)",
    "data-aware": "data-aware",
    "sequential, own kernel": "data-aware, in sequence, for the layer's own kernel",
    "sequential": "data-aware, in sequence, for the dense network's output",
}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Each arm over the runs, which share the test images."""
    first = runs[0]
    return {
        "seeds": [run["seed"] for run in runs],
        "calibration_images": first["calibration_images"],
        "test_images": len(first["dense"]),
        "macs": first["macs"],
        "layers": first["layers"],
        "dense_accuracy": float(first["dense"].mean()),
        "sequence_chosen": [run["chosen"] for run in runs],
        "arms": {
            arm: _arm([(run["right"][arm], run["error"][arm]) for run in runs], first["dense"])
            for arm in first["right"]
        },
    }


def _arm(found: list[tuple[NDArray[np.bool_], float]], dense: NDArray[np.bool_]) -> dict[str, Any]:
    """The interval is normal, over the images, each with its mean over the draws."""
    differences = np.stack([right for right, _ in found]).astype(float) - dense
    images = differences.mean(0)
    half = 1.96 * images.std(ddof=1) / np.sqrt(len(images))
    mean = float(images.mean())
    return {
        "accuracy": float(np.mean([right.mean() for right, _ in found])),
        "accuracy_by_seed": [float(right.mean()) for right, _ in found],
        "difference": mean,
        "interval": [mean - half, mean + half],
        "error": float(np.mean([error for _, error in found])),
        "error_by_seed": [error for _, error in found],
    }


def print_table(network: str, ranks: str, found: dict[str, Any]) -> None:
    print(
        f"\n{network}, {ranks}: {found['macs']:.3f} of the MACs; dense {found['dense_accuracy']:.2%}; "
        f"{found['calibration_images']} calibration images, seeds {found['seeds']}"
    )
    for arm, figures in found["arms"].items():
        name = NAMES[arm.removesuffix("+")] + (", corrected" if arm.endswith("+") else "")
        low, high = figures["interval"]
        print(
            f"{name:66} error {figures['error']:.3f}  {figures['accuracy']:.2%}  "
            f"{100 * figures['difference']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
        )
    print(f"a build takes the sequence: {found['sequence_chosen']}", flush=True)
