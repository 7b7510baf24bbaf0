"""Time one model, or two that take turns: ONNX files on ONNX Runtime, engines on TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tdc_deploy.bench_subjects import Subject, open_subject
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.shapes import Shape
from tdc_deploy.profiling.measure import Effort, Feeds, compare_fresh, measure
from tdc_deploy.progress import Progress
from tdc_deploy.samples import read_samples
from tdc_deploy.types import Ratio, Timing


@dataclass(frozen=True)
class BenchResult:
    """Timings in the order of the models, and for two their ratio, second over first."""

    timings: tuple[Timing, ...]
    ratio: Ratio | None
    batch: int
    backend: Mapping[str, str]


def bench_models(
    model: Path,
    other: Path | None = None,
    *,
    iterations: int = 100,
    duration: float = 3.0,
    warmup: float = 0.2,
    inputs: Path | None = None,
    shapes: Mapping[str, Shape] | None = None,
    threads: int = 0,
    progress: Progress,
) -> BenchResult:
    """Time `model`, or `model` and `other` interleaved.

    `duration` and `warmup` are in seconds, and lower limits as `iterations` is. Without `inputs`, the
    values fed are random (zeros for integers): they do not change a convolution's time.

    Raises:
        TdcError: a bad file or value, or two models whose inputs differ.
    """
    if iterations < 1 or threads < 0 or not (duration >= 0 and warmup >= 0):
        raise TdcError(
            f"iterations {iterations}, duration {duration}, warmup {warmup}, threads {threads}",
            expected="at least 1 iteration, and no negative number",
        )
    subject = open_subject(model, shapes, threads)
    second = None if other is None else open_subject(other, shapes, threads)
    feeds = _feeds(subject, inputs)
    effort = Effort(warmup_runs=3, warmup_s=warmup, runs=iterations, seconds=duration)
    progress("measuring", 0, 1)
    timings: tuple[Timing, ...]
    if second is None:
        ratio = None
        with subject.make_runner() as runner:
            timings = (measure(runner, feeds, effort),)
    else:
        _check_same_inputs(subject, second)
        ratio = compare_fresh(subject.make_runner, second.make_runner, feeds, effort)
        timings = (ratio.before, ratio.after)
    batch = next((shape[0] for shape in subject.sizes.values() if shape), 1)
    return BenchResult(timings, ratio, batch, subject.backend)


def _feeds(subject: Subject, inputs: Path | None) -> Feeds:
    if inputs is not None:
        return read_samples(inputs, subject.dtypes, subject.sizes).first_batch()
    rng = np.random.default_rng(0)
    feeds = {}
    for name, dtype in subject.dtypes.items():
        shape = subject.sizes[name]
        values = rng.standard_normal(shape) if dtype.kind == "f" else np.zeros(shape)
        feeds[name] = values.astype(dtype)
    return feeds


def _check_same_inputs(first: Subject, second: Subject) -> None:
    a, b = ([(name, dtype.name) for name, dtype in s.dtypes.items()] for s in (first, second))
    if a != b:
        raise TdcError(f"the second model takes {b}", expected=f"the same inputs as the first: {a}")
