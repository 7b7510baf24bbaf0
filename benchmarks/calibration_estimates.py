"""How close the planner's errors are to those of the factors that ship.

    python -m benchmarks.calibration_estimates

A plan weighs hundreds of candidates of a layer by one factorisation (`data_aware_errors`); what ships has
been refined by alternating least squares. Every candidate of every layer is refined here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from tdc_calibration.calibration import calibrate

from benchmarks.calibration import RESULTS, environment
from benchmarks.calibration_networks import NETWORKS, opened
from tdc_deploy.files import write_whole
from tdc_deploy.ranks.candidates import enumerate_candidates
from tdc_deploy.source import Source

KEY = "estimates"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="resnet20,vgg16_bn_quarter")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    for network in chosen.networks.split(","):
        subject = opened(NETWORKS[network], 0)
        measured = calibrate(subject.source, subject.reader, ranges=False, threads=1)
        found = estimates(subject.source.with_statistics(measured.statistics))
        known = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
        known.setdefault(KEY, {})[network] = found | {"environment": environment()}
        write_whole({chosen.out: (json.dumps(known, indent=1) + "\n").encode()})
        print(network, json.dumps({k: v for k, v in found.items() if k != "layers"}), flush=True)


def estimates(source: Source) -> dict[str, Any]:
    """Rank correlation within layers, and estimate over refined error, of all candidates that lose at least
    1e-4.
    """
    layers: dict[str, Any] = {}
    ratios: list[float] = []
    for name, layer in source.plannable.items():
        candidates = enumerate_candidates(layer)
        if not candidates:
            continue
        bounds = np.array(source.decompositions.errors(name, candidates))
        errors = np.array([source.decompositions.error(name, c) for c in candidates])
        losing = errors >= 1e-4
        ratio = bounds[losing] / errors[losing]
        ratios += ratio.tolist()
        layers[name] = {
            "candidates": len(candidates),
            "spearman": float(spearmanr(bounds, errors).statistic),
            "largest_ratio": float(ratio.max(initial=1.0)),
        }
    correlations = [entry["spearman"] for entry in layers.values()]
    low, middle, high, most = np.quantile(ratios, [0.05, 0.5, 0.95, 1.0])
    return {
        "candidates": len(ratios),
        "least_spearman": min(correlations),
        "median_spearman": float(np.median(correlations)),
        "ratio": {"5%": low, "median": middle, "95%": high, "largest": most},
        "layers": layers,
    }


if __name__ == "__main__":
    main()
