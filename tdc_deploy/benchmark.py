"""Time one model, or two that take turns, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import network_of
from tdc_deploy.graph.read import load_checked
from tdc_deploy.graph.shapes import Shape, Shapes, input_shapes
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
    graph = network_of(load_checked(model)).graph
    sizes = input_shapes(graph, shapes)
    if other is not None:
        _check_same_inputs(graph, network_of(load_checked(other)).graph)
    feeds = _feeds(graph, sizes, inputs)
    backend = OnnxRuntimeBackend(threads)
    effort = Effort(warmup_runs=3, warmup_s=warmup, runs=iterations, seconds=duration)
    progress("measuring", 0, 1)
    timings: tuple[Timing, ...]
    if other is None:
        ratio = None
        with backend.runner(model) as runner:
            timings = (measure(runner, feeds, effort),)
    else:
        ratio = compare_fresh(
            lambda: backend.runner(model), lambda: backend.runner(other), feeds, effort
        )
        timings = (ratio.before, ratio.after)
    batch = next((shape[0] for shape in sizes.values() if shape), 1)
    return BenchResult(timings, ratio, batch, backend.describe())


def _feeds(graph: gs.Graph, sizes: Shapes, inputs: Path | None) -> Feeds:
    if inputs is not None:
        return read_samples(inputs, graph, sizes).first_batch()
    rng = np.random.default_rng(0)
    feeds = {}
    for tensor in graph.inputs:
        dtype, shape = np.dtype(tensor.dtype), sizes[tensor.name]
        values = rng.standard_normal(shape) if dtype.kind == "f" else np.zeros(shape)
        feeds[tensor.name] = values.astype(dtype)
    return feeds


def _check_same_inputs(first: gs.Graph, second: gs.Graph) -> None:
    a, b = ([(t.name, np.dtype(t.dtype).name) for t in g.inputs] for g in (first, second))
    if a != b:
        raise TdcError(f"the second model takes {b}", expected=f"the same inputs as the first: {a}")
