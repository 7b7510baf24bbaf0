"""ResNet-18 at 224x224 on ONNX Runtime: the main job through the command line, measured from outside.

    python -m benchmarks.resnet18_onnxruntime --out benchmarks/results/resnet18_onnxruntime.json

For each of torch's exporters: a plan with an empty store and again with a full one, a build from that
plan, peak memory of each command, and what Session adds to a bare ONNX Runtime call. Needs torch. The
weights are drawn, not trained (benchmarks/models.py), so errors are those of a random network: this
shows time, not accuracy.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import tdc_deploy
from benchmarks.commands import command, measured
from benchmarks.models import export, image_like, resnet18
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend

SHAPE = (1, 3, 224, 224)
CALLS = 2000
EXPORTERS = ("torchscript", "dynamo")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--max-error", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = [run_exporter(Path(folder), exporter, args) for exporter in EXPORTERS]
    report = {
        "date": date.today().isoformat(),
        "backend": OnnxRuntimeBackend(args.threads).describe(),
        "budget": args.budget,
        "max_error": args.max_error,
        "session_overhead_us": session_overhead_us(),
        "results": results,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


def run_exporter(folder: Path, exporter: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Plan cold, plan warm, build; `folder` is for scratch files."""
    model, plan = folder / f"{exporter}.onnx", folder / f"{exporter}.json"
    inputs, store = folder / "inputs.npz", folder / f"{exporter}.sqlite3"
    export(resnet18(), model, SHAPE, exporter)
    np.savez(inputs, image=image_like(16, *SHAPE[1:3], seed=7))
    common = ["--inputs", inputs, "--max-error", args.max_error, "--store", store]
    common += ["--threads", args.threads, "--json"]
    planning = ["plan", model, "-o", plan, "--latency-budget", args.budget, *common]
    cold = command(planning)
    warm = command(planning)
    built = command(["build", model, "-o", folder / "out.onnx", "--plan", plan, *common])
    sizes = [file.stat().st_size for file in (model, Path(f"{model}.data")) if file.is_file()]
    network, figures = built["output"]["network"], cold["output"]["network"]
    return {
        "exporter": exporter,
        "model_bytes": sum(sizes),
        "layer_measurements": cold["output"]["measurements"],
        "layer_measurements_warm": warm["output"]["measurements"],
        "predicted_ratio": figures["predicted_ms"] / figures["dense_ms"],
        "measured_ratio": figures["measured_ms"] / figures["dense_ms"],
        "built_ratio": network["value"],
        "built_ratio_interval": [network["lower"], network["upper"]],
        "dense_ms": network["before"]["median"],
        "built_ms": network["after"]["median"],
        "error": built["output"]["verification"]["error"],
        "plan_cold": measured(cold),
        "plan_warm": measured(warm),
        "build": measured(built),
    }


def session_overhead_us() -> float:
    """Median microseconds that Session adds to InferenceSession.run, on the small demo network."""
    model = Path(__file__).parents[1] / "train" / "demo" / "digits.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    bare = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    x = np.zeros((1, 1, 32, 32), np.float32)
    with tdc_deploy.load(model, threads=1) as session:
        differences = []
        for _ in range(CALLS):
            start = time.perf_counter()
            bare.run(None, {"image": x})
            middle = time.perf_counter()
            session(x)
            differences.append((time.perf_counter() - middle) - (middle - start))
    return round(float(np.median(differences)) * 1e6, 2)


if __name__ == "__main__":
    main()
