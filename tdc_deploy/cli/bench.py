"""`tdc-deploy bench`: time one model, or two against each other."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from tdc_deploy.cli import options
from tdc_deploy.cli.output import Output, ms
from tdc_deploy.types import Timing

HEADERS = ("model", "median ms", "p90", "p95", "p99", "spread", "runs", "per second")


def bench(
    model: options.ArtifactArgument,
    other: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help="A second model with the same inputs; the two take turns."),
    ] = None,
    iterations: Annotated[int, typer.Option(help="Timed runs at least.")] = 100,
    duration: Annotated[float, typer.Option(help="Seconds of timed runs at least.")] = 3.0,
    warmup: Annotated[float, typer.Option(help="Seconds of warm-up at least.")] = 0.2,
    inputs: options.FeedsOption = None,
    shapes: options.ShapesOption = None,
    threads: options.ThreadsOption = 0,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Time a model; with a second one, interleave them and give the ratio with its 95% interval."""
    from tdc_deploy.benchmark import bench_models

    out = Output(as_json, quiet, verbose)
    with out.progress() as progress:
        result = bench_models(
            model,
            other,
            iterations=iterations,
            duration=duration,
            warmup=warmup,
            inputs=inputs,
            shapes=options.parse_shapes(shapes),
            threads=threads,
            progress=progress,
        )
    out.json(asdict(result))
    names = [str(model)] if other is None else [str(model), str(other)]
    out.table(
        HEADERS, [_row(n, t, result.batch) for n, t in zip(names, result.timings, strict=True)]
    )
    if result.ratio is not None:
        value, lower, upper = result.ratio.value, result.ratio.lower, result.ratio.upper
        out.text(f"ratio {value:.3f}, 95% interval {lower:.3f} to {upper:.3f}")


def _row(name: str, timing: Timing, batch: int) -> tuple[object, ...]:
    return (
        name,
        ms(timing.median),
        ms(timing.p90),
        ms(timing.p95),
        ms(timing.p99),
        f"{100 * timing.spread:.0f}%",
        timing.runs,
        f"{1e3 * batch / timing.median:.0f}",
    )
