"""The paper's networks and others on ONNX Runtime, dense and planned.

    python -m benchmarks.onnxruntime_networks FOLDER --networks resnet18 vgg16_bn --batches 1 8 --threads 1

Per network and batch size, a row each: dense; planned for half the time; TDC's rank table as it is, where
its authors released one; and planned for the error of that table. Times are whole networks against each
other, errors those of the logits on images that corrected nothing. The weights are drawn, not trained
(benchmarks/models.py): this shows time and what a method loses beside another, not accuracy.

Every row is written to FOLDER as soon as it is measured, and one that is there is not measured again; the
rows are joined in --out. Needs torch.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tdc_deploy
from benchmarks.networks.registry import NETWORKS, Files, prepare
from benchmarks.plans import ANY_ERROR, conv_macs, plan_from, tdc_selection
from benchmarks.rows import Row, Rows, conditions
from tdc_deploy.artifact import Artifact
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import Plan
from tdc_deploy.profiling.measure import NETWORK
from tdc_deploy.samples import input_types, read_samples
from tdc_deploy.source import Source, read_source

RESULTS = Path(__file__).parent / "results" / "onnxruntime_networks.json"
BUDGET = 0.5
KINDS = ("dense", "half", "table", "table-error")


def main() -> None:
    args = parse(sys.argv[1:])
    rows = Rows(args.folder / "rows", conditions(args.threads))
    try:
        for name in args.networks:
            for batch in args.batches:
                _measure(Subject(args.folder, name, batch, args.threads), rows)
                rows.join(all_keys(args.batches), args.out)
    except TdcError as error:
        sys.exit(f"error: {error}")


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(words)


def all_keys(batches: list[int]) -> list[str]:
    """The keys of all rows that there can be, in the order of the table."""
    return [f"{name}/b{batch}/{kind}" for name in NETWORKS for batch in batches for kind in KINDS]


@dataclass(frozen=True)
class Subject:
    """A network at a batch size; `store` is the file of its measurements."""

    folder: Path
    name: str
    batch: int
    threads: int

    @property
    def files(self) -> Files:
        return prepare(self.folder / "models", self.name, self.batch)

    @property
    def store(self) -> Path:
        return self.folder / f"{self.name}_b{self.batch}.sqlite3"

    def key(self, kind: str) -> str:
        return f"{self.name}/b{self.batch}/{kind}"


def _measure(subject: Subject, rows: Rows) -> None:
    table = NETWORKS[subject.name].table
    for kind in KINDS:
        if rows.get(subject.key(kind)) is None and (table or not kind.startswith("table")):
            _show(subject, kind, rows.keep(subject.key(kind), _row(subject, kind, rows)))
            gc.collect()


def _row(subject: Subject, kind: str, rows: Rows) -> Row:
    source = read_source(subject.files.model)
    if kind == "dense":
        return _dense(subject, source)
    if kind == "half":
        subject.store.unlink(missing_ok=True)  # a plan that was interrupted: this one begins cold
        return _planned(subject, source, latency_budget=BUDGET, max_error=ANY_ERROR)
    table = NETWORKS[subject.name].table
    assert table is not None
    if kind == "table":
        selection = tdc_selection(table, source, subject.files.module_paths())
        return _built(subject, source, plan_from(selection))
    found = rows.get(subject.key("table"))
    assert found is not None
    return _planned(subject, source, max_error=found["error"])


def _dense(subject: Subject, source: Source) -> Row:
    graph = source.network.graph
    samples = read_samples(subject.files.inputs, input_types(graph), source.inputs)
    backend = OnnxRuntimeBackend(subject.threads)
    timing = backend.measure(source.path, samples.first_batch(), NETWORK)
    shapes = {name: list(shape) for name, shape in source.inputs.items()}
    return {"ms": timing.median, "macs": conv_macs(source, {}), "inputs": shapes}


def _planned(
    subject: Subject, source: Source, max_error: float, latency_budget: float | None = None
) -> Row:
    start = time.perf_counter()
    plan = tdc_deploy.plan(
        source.path,
        inputs=subject.files.inputs,
        latency_budget=latency_budget,
        max_error=max_error,
        threads=subject.threads,
        store=subject.store,
    )
    seconds = time.perf_counter() - start
    assert plan.network is not None
    planning = {
        "planning_s": round(seconds, 1),
        "layer_measurements": plan.measurements,
        "planned_ratio": plan.network.ratio,
        "predicted_ratio": plan.network.predicted_ms / plan.network.dense_ms,
        "warnings": list(plan.warnings),
    }
    return {**_built(subject, source, plan), **planning}


def _built(subject: Subject, source: Source, plan: Plan) -> Row:
    """Time and error of the network that a plan makes, whether it would be shipped or not."""
    start = time.perf_counter()
    artifact = tdc_deploy.build(
        source.path,
        subject.folder / "models" / f"{subject.name}_b{subject.batch}.built.onnx",
        plan=plan,
        inputs=subject.files.inputs,
        max_error=ANY_ERROR,
        threads=subject.threads,
        store=subject.store,
    )
    seconds = time.perf_counter() - start
    return {
        **figures(artifact),
        "macs": conv_macs(source, plan.selection),
        "build_s": round(seconds, 1),
        "layers": {name: str(candidate) for name, candidate in plan.selection.items()},
    }


def figures(artifact: Artifact) -> Row:
    """What was measured of a built network against the dense one."""
    ratio, comparison = artifact.ratio, artifact.comparison
    return {
        "ms": ratio.after.median,
        "dense_ms": ratio.before.median,
        "ratio": ratio.value,
        "ratio_interval": [ratio.lower, ratio.upper],
        "error": comparison.error,
        "top1_agreement": comparison.top1_agreement,
    }


def _show(subject: Subject, kind: str, row: Row) -> None:
    words = [f"{subject.key(kind):32} {row['ms']:9.2f} ms  {row['macs'] / 1e9:7.2f} GMACs"]
    if "ratio" in row:
        lower, upper = row["ratio_interval"]
        words.append(f"ratio {row['ratio']:.3f} ({lower:.3f} to {upper:.3f})")
        words.append(f"error {row['error']:.3f}")
    if "planning_s" in row:
        words.append(f"planned in {row['planning_s']:.0f} s, {row['layer_measurements']} layers")
    print("  ".join(words), flush=True)


if __name__ == "__main__":
    main()
