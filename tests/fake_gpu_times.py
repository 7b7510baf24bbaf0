"""A GPU whose times follow from a formula, so that the best choice is known without measuring."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
import pytest

from tdc_deploy import engine_forms
from tdc_deploy.backends.tensorrt import backend
from tdc_deploy.backends.tensorrt.engine import Engine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.prepare import Prepared
from tdc_deploy.backends.tensorrt.profiles import Ranges
from tdc_deploy.errors import TdcError
from tdc_deploy.types import Ratio, Timing
from tests.fake_tensorrt import FakeTensorRT
from tests.fakes import constant_timing

LAUNCH_MS = 0.002
MACS_PER_MS = 1e9
REST_MS = 0.001


class FakeGpu(FakeTensorRT):
    """A convolution takes a launch and its arithmetic; a plugin node a launch, and `slowness` times the
    arithmetic of its three convolutions (`slowness_at` says it for some numbers of input channels).
    Convolutions in INT8 take their arithmetic over `int8_speed`.
    `penalties` are milliseconds that a plugin node of that name costs more in a network than alone.

    `log` has "build" and "measure" in order; `fail_at` is the number of the build that Ctrl-C ends;
    `refuse` is a name among the nodes of what cannot be built.
    """

    def __init__(self, patch: pytest.MonkeyPatch, plugin: Path) -> None:
        super().__init__(patch, plugin)
        self.slowness = 1.0
        self.slowness_at: dict[int, float] = {}
        self.penalties: dict[str, float] = {}
        self.int8_speed = 1.0
        self.log: list[str] = []
        self.fail_at: int | None = None
        self.refuse: set[str] = set()
        self.options: list[EngineOptions] = []
        self.active = 0
        self._known: dict[bytes, float] = {}
        patch.setattr(engine_forms, "compare_fresh", self._compare_fresh)
        patch.setattr(backend, "build_engine", self._build)
        patch.setattr(backend, "build_layer", self._build_layer)
        patch.setattr(backend, "EngineRunner", self._timed)
        patch.setattr(backend, "measure", self._measure)
        patch.setattr("tdc_deploy.evaluate.compare", self._compare_active)

    def count(self, what: str) -> int:
        return self.log.count(what)

    def _build(
        self, prepared: Prepared, ranges: Ranges, options: EngineOptions, progress: object
    ) -> Engine:
        assert not self.active, "nothing is built while an engine is being timed"
        self.log.append("build")
        self.options.append(options)
        if self.fail_at is not None and self.count("build") == self.fail_at:
            raise KeyboardInterrupt
        if self.refuse & {node.op_type for node in prepared.model.graph.node}:
            raise TdcError("no kernel for it")
        return super()._build(prepared, ranges, options, progress)

    def _build_layer(self, prepared: Prepared, ranges: Ranges, options: EngineOptions) -> Engine:
        return self._build(prepared, ranges, options, None)

    def _timed(self, engine: Engine, name: str = "engine", flush_bytes: int = 0) -> Any:
        assert flush_bytes > 0, "a cold cache"
        return _Active(self, engine, name)

    def _measure(self, runner: Any, _feeds: object, _effort: object) -> Timing:
        self.log.append("measure")
        assert self.active == 1
        return constant_timing(self.milliseconds(runner.engine))

    def _compare_active(self, before: Any, after: Any, _feeds: object, _effort: object) -> Ratio:
        self.log.append("measure")
        assert self.active == 2
        return self._ratio(before.engine, after.engine)

    def _compare_fresh(self, before: Any, after: Any, _feeds: object, _effort: object) -> Ratio:
        self.log.append("measure")
        with before() as first, after() as second:
            return self._ratio(first.engine, second.engine)

    def _runner(self, engine: Engine, name: str = "engine", _flush_bytes: int = 0) -> Any:
        runner = super()._runner(engine, name)
        runner.engine = engine
        return runner

    def _ratio(self, before: Engine, after: Engine) -> Ratio:
        times = [self.milliseconds(engine) for engine in (before, after)]
        value = times[1] / times[0]
        bounds = (value, value * (1 - self.width), value * (1 + self.width))
        return Ratio(*bounds, *map(constant_timing, times))

    def milliseconds(self, engine: Engine) -> float:
        """What an engine takes."""
        if engine.plan not in self._known:
            model = onnx.load_model_from_string(engine.plan)
            self._int8 = {
                node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"
            }
            self._known[engine.plan] = REST_MS + sum(
                self.node_ms(node, macs, channels) for node, macs, channels in macs_of_nodes(model)
            )
        return self._known[engine.plan]

    def node_ms(self, node: onnx.NodeProto, macs: int, channels: int) -> float:
        """What a convolution or plugin node with that many input channels takes."""
        if node.op_type == "Conv":
            int8 = node.input[1] in self._int8
            return LAUNCH_MS + macs / MACS_PER_MS / (self.int8_speed if int8 else 1.0)
        slow = self.slowness_at.get(channels, self.slowness) * macs / MACS_PER_MS
        return LAUNCH_MS + slow + self.penalties.get(node.name, 0)


class _Active:
    def __init__(self, gpu: FakeGpu, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self._gpu = gpu

    def __enter__(self) -> _Active:
        self._gpu.active += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._gpu.active -= 1


def macs_of_nodes(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, int, int]]:
    """Every convolution and plugin node with its multiply-accumulates and input channels."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        shapes[value.name] = [max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim]
    found = []
    for node in inferred.node:
        if node.op_type == "Conv":
            pixels = int(np.prod(shapes[node.output[0]][2:]))
            weight = shapes[node.input[1]]
            found.append((node, pixels * int(np.prod(weight)), weight[1]))
        elif node.domain == "tdc":
            x, first, core, last = (shapes[node.input[i]] for i in (0, 1, 3, 5))
            inside = int(np.prod(x[2:])) * int(np.prod(first))
            outside = int(np.prod(shapes[node.output[0]][2:]))
            macs = inside + outside * int(np.prod(core) + np.prod(last))
            found.append((node, macs, first[1]))
    return found
