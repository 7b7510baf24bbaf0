"""Our kernels on a GPU, layer by layer, against torch's, and against TDC's scheme.

    python -m benchmarks.gpu_kernels --model resnet18 --batch 1 --precision fp16

Layers of ResNet-18, ResNet-50 and VGG-16 with TDC's ranks, and the 18 cores that TDC's authors report. Each
time is the median of CUDA-graph replays with a cold L2 cache, between events around the layer alone; ours
is held against float64 first. It can be stopped and started again: results grow in --out, and what is there
is not measured again. Needs torch and a GPU; without, it prints what the analytical model predicts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.layers import CORES, MODELS, Case, cases
from benchmarks.gpu.machine import describe, missing, open_library
from benchmarks.gpu.predictions import named_device, predicted
from benchmarks.gpu.results import Results
from benchmarks.gpu.tables import print_results
from tdc_deploy.cli.output import Output
from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.tactics import Arithmetic

ARITHMETIC: dict[str, Arithmetic] = {"fp16": "f16", "tf32": "tf32", "fp32": "f32"}
BATCHES = (1, 8, 32)
DEFAULT_OUT = Path(__file__).parent / "results" / "gpu_kernels.json"


@dataclass(frozen=True)
class Job:
    """One entry of the results."""

    case: Case
    precision: str

    @property
    def key(self) -> str:
        """Its name among the results."""
        return f"{self.case.name}/b{self.case.layer.batch}/{self.precision}"


def main() -> None:
    args = parse(sys.argv[1:])
    try:
        jobs = list(selected(args.model, args.batch, args.precision))
        reason = missing()
        if reason:
            print(f"{reason}: not measured")
            print_predictions(jobs, args.device)
        else:
            measure(jobs, args)
    except TdcError as error:
        sys.exit(f"error: {error}")


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    several: dict[str, Any] = {"action": "append"}
    parser.add_argument("--model", choices=(*MODELS, CORES), **several, help="default: all")
    parser.add_argument("--batch", type=int, **several, help="default: 1, 8 and 32")
    parser.add_argument("--precision", choices=tuple(ARITHMETIC), **several, help="default: all")
    parser.add_argument("--limit-seconds", type=float, help="start no layer after so many seconds")
    parser.add_argument("--compile", default="default", help="torch.compile's mode, or off")
    parser.add_argument("--library", type=Path, help="plugin library; default: built for this GPU")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="JSON file that grows")
    parser.add_argument("--device", default="H200", help="GPU to predict for where there is none")
    return parser.parse_args(words)


def selected(
    models: list[str] | None, batches: list[int] | None, precisions: list[str] | None
) -> Iterator[Job]:
    """The jobs, batch 1 in fp16 first; the cores only at batch 1 in fp32, as TDC was published."""
    for precision in precisions or ARITHMETIC:
        for batch in batches or BATCHES:
            for model in models or (*MODELS, CORES):
                if model == CORES and (batch, precision) != (1, "fp32"):
                    continue
                for case in cases(model):
                    yield Job(case.at_batch(batch), precision)


def measure(jobs: list[Job], args: argparse.Namespace) -> None:
    """Measure what is not there yet, then print all that is."""
    from benchmarks.gpu.measure import Bench
    from benchmarks.gpu.timing import ColdTimer

    start = time.monotonic()
    out = Output(as_json=False, quiet=False)
    library = open_library(args.library)
    results = Results(args.out, {**describe(library), "compile": args.compile})
    timer = ColdTimer()
    bench = Bench(library, timer, args.compile)
    ceilings = stored_ceilings(results)
    results.put("empty_interval_us", timer.nothing().median_us)
    left = [job for job in jobs if job.key not in results.entries]
    for done, job in enumerate(left):
        if args.limit_seconds is not None and time.monotonic() - start > args.limit_seconds:
            print(f"stopped at the time limit: {len(left) - done} of {len(jobs)} are still to do")
            break
        print(f"{job.key} ({done + 1} of {len(left)})", file=sys.stderr)
        results.add(job.key, measured(bench, job, ceilings))
    print_results(
        out, {job.key: results.entries[job.key] for job in jobs if job.key in results.entries}
    )
    print(f"ceilings: {ceilings.bytes_per_s / 1e12:.2f} TB/s, " + rates(ceilings.flops_per_s))
    print(f"of each time, {results.get('empty_interval_us'):.2f} us are the events' own")


def measured(bench: Any, job: Job, ceilings: Any) -> dict[str, Any]:
    """The entry of one job."""
    from benchmarks.gpu.measure import measure_core, measure_layer

    arithmetic = ARITHMETIC[job.precision]
    common = {
        "batch": job.case.layer.batch,
        "precision": job.precision,
        "floor_us": ceilings.floor_us(job.case, arithmetic),
    }
    if job.case.model == CORES:
        return {**common, **measure_core(bench, job.case)}
    return {**common, **measure_layer(bench, job.case, arithmetic)}


def stored_ceilings(results: Results) -> Any:
    """The ceilings of an earlier run on this machine, else measured now."""
    from benchmarks.gpu.ceilings import Ceilings, measure_ceilings

    stored = results.get("ceilings")
    if stored is not None:
        return Ceilings(**stored)
    ceilings = measure_ceilings()
    results.put("ceilings", asdict(ceilings))
    return ceilings


def rates(flops_per_s: dict[str, float]) -> str:
    return ", ".join(f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in flops_per_s.items())


def print_predictions(jobs: list[Job], name: str) -> None:
    """What the analytical model expects of our kernels on the GPU of that name."""
    device = named_device(name)
    rows = []
    for job in jobs:
        arithmetic = ARITHMETIC[job.precision]
        ours = predicted(job.case, arithmetic, device)
        tdc = None
        if job.case.model == CORES:
            tdc = predicted(job.case, arithmetic, device, channel_first=True)
        if ours is not None:
            tdc_us = "-" if tdc is None else f"{tdc.us:.2f}"
            rows.append((job.key, f"{ours.us:.2f}", f"{ours.roofline_us:.2f}", ours.tactic, tdc_us))
    out = Output(as_json=False, quiet=False)
    headers = ("layer", "predicted us", "roofline us", "tactic", "TDC's scheme us")
    out.table(headers, rows, title=f"predictions of the analytical model for {device.name}")
    out.text("These are predictions: nothing here was measured.")


if __name__ == "__main__":
    main()
