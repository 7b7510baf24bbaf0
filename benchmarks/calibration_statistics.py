"""Statistics of ResNet-50 at 224x224 from images on disk: time against plain inference, and memory.

    python -m benchmarks.calibration_statistics --out benchmarks/results/calibration_statistics.json

Plain inference reads the same files and runs the same model, one image at a time, and is measured before
and after the pass; each runs in a process of its own. Then: how far moments of float32 products are from
those of float64 ones, on some of the images. Needs torch. The weights are drawn, not trained.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from tdc_calibration import calibrate, input_spec, open_data
from tdc_calibration.moments import Accumulator, accumulator_of
from tdc_calibration.watch import watch

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.source import Source, read_source

SHAPE = (1, 3, 224, 224)
COMPARED = 48


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--child", choices=list(CHILDREN), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(CHILDREN[args.child](args.folder, args.threads)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, args.images)
        before, measured, after = (child(folder, name, args.threads) for name in ORDER)
        difference = child(folder, "compare", args.threads)
    plain = (before["seconds"] + after["seconds"]) / 2
    report = {
        "date": date.today().isoformat(),
        "backend": OnnxRuntimeBackend(args.threads).describe(),
        "images": args.images,
        "plain_ms_per_image": [1e3 * run["seconds"] / args.images for run in (before, after)],
        "pass_ms_per_image": 1e3 * measured["seconds"] / args.images,
        "ratio": measured["seconds"] / plain,
        "cpu_ratio": 2 * measured["cpu_seconds"] / (before["cpu_seconds"] + after["cpu_seconds"]),
        "peak_rss_mb": measured["peak_rss_mb"],
        "plain_peak_rss_mb": before["peak_rss_mb"],
        "file_mb": measured["file_mb"],
        "layers": measured["layers"],
        "float32_against_float64": difference,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


def prepare(folder: Path, count: int) -> None:
    """model.onnx, and one .npy file for each image."""
    from tdc_train.models.registry import make_model

    from benchmarks.models import decaying_, export, image_like, settle_batch_norm

    model = make_model("resnet50")
    decaying_(model, 1.0, 0)
    settle_batch_norm(model, image_like(4, *SHAPE[1:3], seed=0))
    export(model.eval(), folder / "model.onnx", SHAPE, "torchscript")
    (folder / "images").mkdir()
    for number in range(count):
        image = image_like(1, *SHAPE[1:3], seed=1 + number)[0]
        np.save(folder / "images" / f"{number:05}.npy", image)


def child(folder: Path, name: str, threads: int) -> dict[str, Any]:
    """What one of CHILDREN returns, from a process of its own."""
    words = ["--child", name, "--folder", folder, "--threads", threads]
    command = [sys.executable, "-m", "benchmarks.calibration_statistics", *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def run_plain(folder: Path, threads: int) -> dict[str, Any]:
    reader = open_data(folder / "images", input_spec(read_source(folder / "model.onnx")))
    with OnnxRuntimeBackend(threads).runner(folder / "model.onnx") as runner:
        for feeds, _ in reader.limited(3).batches():
            runner.infer(feeds, check_inputs=False)
        start, cpu = time.perf_counter(), time.process_time()
        for feeds, _ in reader.batches():
            runner.infer(feeds, check_inputs=False)
    return times(start, cpu)


def run_pass(folder: Path, threads: int) -> dict[str, Any]:
    output = folder / "statistics"
    source = read_source(folder / "model.onnx")
    start, cpu = time.perf_counter(), time.process_time()
    found = calibrate(source, folder / "images", output, threads=threads)
    return times(start, cpu) | {
        "file_mb": output.stat().st_size / 1e6,
        "layers": len(found.moments),
    }


def run_compare(folder: Path, threads: int) -> dict[str, Any]:
    """For a layer of each shape: |difference| / √(M_ii·M_jj), its root mean square and its largest.

    M_ii is the largest of a channel's positions.
    """
    source = read_source(folder / "model.onnx")
    reader = open_data(folder / "images", input_spec(source), most=COMPARED)
    layers = {
        (layer.c_in, layer.kernel, layer.strides): name for name, layer in source.plannable.items()
    }
    ways = {
        name: [accumulator_of(source.plannable[name], dtype=d) for d in (np.float32, np.float64)]
        for name in layers.values()
    }
    watched: dict[str, list[Accumulator]] = {}
    for name, pair in ways.items():
        watched.setdefault(source.convs[name].node.inputs[0].name, []).extend(pair)
    watch(source, reader, watched, threads=threads)
    return {name: _difference(source, name, pair) for name, pair in ways.items()}


def _difference(source: Source, name: str, pair: list[Accumulator]) -> Mapping[str, Any]:
    single, double = (way.moment() for way in pair)
    layer = source.plannable[name]
    energies = double.diagonal().reshape(layer.c_in, -1).max(1)
    scale = np.sqrt(np.repeat(energies, len(double) // layer.c_in))
    scale = np.where(scale > 0, scale, 1)
    single -= double
    single /= scale
    single /= scale[:, None]
    return {
        "kernel": [layer.c_in, *layer.kernel],
        "way": type(pair[0]).__name__,
        "rms": float(np.sqrt(np.square(single).mean())),
        "largest": float(np.abs(single).max()),
    }


def times(start: float, cpu: float) -> dict[str, Any]:
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


CHILDREN = {"plain": run_plain, "pass": run_pass, "compare": run_compare}
ORDER = ("plain", "pass", "plain")


if __name__ == "__main__":
    main()
