"""Time without a clock: what a test decides about speed must not depend on the machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import pytest
from numpy.typing import NDArray

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.profiling.measure import timing_of
from tdc_deploy.types import Ratio, Timing

Feeds = Mapping[str, NDArray[Any]]

MACS_PER_MS = 1e6


def constant_timing(milliseconds: float) -> Timing:
    """A timing without any spread."""
    return timing_of([milliseconds] * 3)


def macs_of(model: onnx.ModelProto | Path, feeds: Feeds, int8_speed: float = 1.0) -> float:
    """Multiply-accumulates of all convolutions of a model, those in function bodies too; those of 8-bit
    weights over `int8_speed`.
    """
    loaded = onnx.load(str(model)) if isinstance(model, Path) else model
    inlined = onnx.inliner.inline_local_functions(loaded)
    for value in inlined.graph.input:
        dims = value.type.tensor_type.shape.dim
        del dims[:]
        for size in feeds[value.name].shape:
            dims.add().dim_value = size
    inferred = onnx.shape_inference.infer_shapes(inlined, data_prop=True, strict_mode=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for value in [*inferred.value_info, *inferred.output]:
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    convs = [node for node in inferred.node if node.op_type == "Conv"]
    dequantised = {n.output[0] for n in inferred.node if n.op_type == "DequantizeLinear"}
    total = 0.0
    for node in convs:
        if len(shapes[node.output[0]]) < 2:
            continue  # behind a Loop, shapes are not inferred
        batch, _, *sizes = shapes[node.output[0]]
        macs = batch * math.prod(sizes) * int(np.prod(shapes[node.input[1]]))
        total += macs / (int8_speed if node.input[1] in dequantised else 1)
    assert total > 0 or not convs
    return total


class FakeTime:
    """Latency by arithmetic alone: a network's time is that of its convolutions' arithmetic.

    `ratio` replaces what two whole networks are found to take, as (value, lower, upper); else the
    interval is `width` wide on each side. `int8_speed` is how many times faster arithmetic in 8 bits is.
    `measured` counts the models that were timed alone.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ratio: tuple[float, float, float] | None = None
        self.width = 0.01
        self.int8_speed = 1.0
        self.measured = 0
        self.compared = 0
        self._models: dict[int, onnx.ModelProto | Path] = {}
        self._runners: list[Any] = []
        monkeypatch.setattr(OnnxRuntimeBackend, "measure", self._measure_method())
        monkeypatch.setattr(OnnxRuntimeBackend, "runner", self._runner_method())
        monkeypatch.setattr("tdc_deploy.evaluate.compare", self._compare)
        monkeypatch.setattr("tdc_deploy.evaluate.compare_fresh", self._compare_fresh)

    def _measure_method(self) -> Callable[..., Timing]:
        def measure(
            _: OnnxRuntimeBackend, model: onnx.ModelProto | Path, feeds: Feeds, _effort: object
        ) -> Timing:
            self.measured += 1
            return constant_timing(self._ms(model, feeds))

        return measure

    def _runner_method(self) -> Callable[..., Any]:
        original = OnnxRuntimeBackend.runner

        def runner(backend: OnnxRuntimeBackend, model: onnx.ModelProto | Path) -> Any:
            made = original(backend, model)
            self._runners.append(made)  # keeps its id its own
            self._models[id(made)] = model
            return made

        return runner

    def _compare_fresh(
        self, before: Callable[[], Any], after: Callable[[], Any], feeds: Feeds, _effort: object
    ) -> Ratio:
        return self._compare(before(), after(), feeds)

    def _compare(self, before: Any, after: Any, feeds: Feeds, _effort: object = None) -> Ratio:
        self.compared += 1
        before_ms, after_ms = (
            self._ms(self._models[id(runner)], feeds) for runner in (before, after)
        )
        value = after_ms / before_ms
        bounds = self.ratio or (value, value - self.width, value + self.width)
        return Ratio(*bounds, constant_timing(before_ms), constant_timing(before_ms * bounds[0]))

    def _ms(self, model: onnx.ModelProto | Path, feeds: Feeds) -> float:
        return macs_of(model, feeds, self.int8_speed) / MACS_PER_MS
