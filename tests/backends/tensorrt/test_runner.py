"""Running an engine, with CUDA's calls on host memory and a TensorRT context that doubles its input."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tdc_deploy.backends.tensorrt import backend, runner
from tdc_deploy.backends.tensorrt.backend import TensorRtBackend
from tdc_deploy.backends.tensorrt.engine import Engine
from tdc_deploy.backends.tensorrt.machine import Machine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.precision import BuiltPrecision
from tdc_deploy.backends.tensorrt.runner import EngineRunner
from tdc_deploy.engine_forms import or_left_out
from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.chips import find_device
from tdc_deploy.profiling.layers import LayerProfiler
from tdc_deploy.profiling.store import Store
from tdc_deploy.runtime.cuda import ContextLostError, CudaError, check_context
from tdc_deploy.types import DENSE
from tests.ranks.tables import conv_layer
from tests.runtime.fake_cuda import FakeCuda11Driver
from tests.runtime.fake_gpu import FakeGpu

ENGINE = Engine(
    b"plan",
    "10.9.0",
    BuiltPrecision("fp32", {}),
    (),
    {"x": ("float32", (-1, 3))},
    {"y": ("float16", (-1, 3))},
)


MACHINE = Machine("10.9.0", 10, find_device("A100"), Path("plugin.so"), "0" * 64)


class FakeContext:
    """y = 2 x, in float16."""

    def __init__(self, gpu: FakeGpu) -> None:
        gpu.need_context("create_execution_context")
        gpu.handle("context")
        self._gpu = gpu
        self._shape: tuple[int, ...] = ()
        self._at: dict[str, int] = {}

    def __del__(self) -> None:
        self._gpu.destroy("context")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "x"
        self._shape = shape
        return shape[0] <= 8

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert name == "y"
        return self._shape

    def set_tensor_address(self, name: str, pointer: int) -> None:
        self._at[name] = pointer

    def execute_async_v3(self, stream: int) -> bool:
        self._gpu.record("execute", stream)
        work = partial(double, self._shape, dict(self._at))
        if stream in self._gpu.capturing:
            self._gpu.capturing[stream].append(work)
        else:
            work()
        return self._gpu.executes


def double(shape: tuple[int, ...], at: dict[str, int]) -> None:
    count = int(np.prod(shape))
    x = np.ctypeslib.as_array((ctypes.c_float * count).from_address(at["x"]))
    y = np.ctypeslib.as_array((ctypes.c_uint16 * count).from_address(at["y"]))
    y[:] = (2 * x).astype(np.float16).view(np.uint16)


class FakeEngine:
    def __init__(self, gpu: FakeGpu) -> None:
        gpu.handle("engine")
        self._gpu = gpu

    def __del__(self) -> None:
        self._gpu.destroy("engine")
        if self._gpu.alive.get("context"):
            self._gpu.violations.append("an engine destroyed before its contexts")

    def create_execution_context(self) -> FakeContext | None:
        return FakeContext(self._gpu) if self._gpu.makes_contexts else None


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    made = FakeGpu()
    made.install(monkeypatch)
    monkeypatch.setattr(runner, "load_engine", lambda _: FakeEngine(made))
    yield made
    assert made.violations == []


def left(gpu: FakeGpu) -> dict[str, int]:
    """What was not freed, by kind."""
    return {kind: count for kind, count in gpu.alive.items() if count}


def feed(rows: int, scale: float = 1.0) -> dict[str, Any]:
    return {"x": scale * np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)}


def use(flush_bytes: int = 64) -> None:
    with EngineRunner(ENGINE, flush_bytes=flush_bytes) as active:
        active.infer(feed(2), check_inputs=False)


def test_outputs_are_those_of_the_replayed_graph(gpu: FakeGpu) -> None:
    with EngineRunner(ENGINE) as active:
        for scale in (1.0, 3.0):
            y = active.infer(feed(2, scale), check_inputs=False)["y"]
            assert y.dtype == np.float16
            assert np.array_equal(y, 2 * feed(2, scale)["x"])
        assert active.last_inference_time() == pytest.approx(0.25e-3)
    assert gpu.names().count("cuGraphInstantiate") == 1
    assert gpu.names().count("cuGraphLaunch") == 2
    assert left(gpu) == {}


def test_only_the_graph_is_timed(gpu: FakeGpu) -> None:
    use(flush_bytes=64)
    first = gpu.names().index("cuEventRecord")
    assert gpu.names()[first : first + 3] == ["cuEventRecord", "cuGraphLaunch", "cuEventRecord"]
    assert gpu.names()[first - 1] == "cuMemsetD8Async"


def test_each_shape_has_a_graph_of_its_own(gpu: FakeGpu) -> None:
    with EngineRunner(ENGINE) as active:
        for rows in (1, 4, 1):
            y = active.infer(feed(rows), check_inputs=False)["y"]
            assert np.array_equal(y, 2 * feed(rows)["x"])
    assert gpu.names().count("cuGraphInstantiate") == 2
    assert left(gpu) == {}


@pytest.mark.usefixtures("gpu")
def test_other_layouts_are_copied_right() -> None:
    x = np.asfortranarray(feed(4)["x"].astype(np.float64))
    with EngineRunner(ENGINE) as active:
        assert np.array_equal(active.infer({"x": x}, check_inputs=False)["y"], 2 * x)


def test_a_shape_that_the_engine_refuses(gpu: FakeGpu) -> None:
    with EngineRunner(ENGINE) as active:
        before = left(gpu)
        with pytest.raises(RuntimeError, match=r"refuses shape \(9, 3\) for 'x'"):
            active.infer(feed(9), check_inputs=False)
        gc.collect()
        assert left(gpu) == before, "what was made for that shape is freed at once"
        assert active.infer(feed(8), check_inputs=False)["y"].shape == (8, 3)
    assert left(gpu) == {}


def test_a_run_that_tensorrt_refuses(gpu: FakeGpu) -> None:
    gpu.executes = False
    with pytest.raises(RuntimeError, match="could not run the engine"):
        use()
    assert left(gpu) == {}


def test_a_context_that_tensorrt_does_not_make(gpu: FakeGpu) -> None:
    gpu.makes_contexts = False
    with pytest.raises(RuntimeError, match="made no execution context"):
        use()
    assert left(gpu) == {}


def test_an_engine_that_does_not_load(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: bytes) -> None:
        raise TdcError("no engine")

    monkeypatch.setattr(runner, "load_engine", refuse)
    with pytest.raises(TdcError, match="no engine"):
        use()
    assert left(gpu) == {}


class FailingCall:
    """Lets one call of CUDA fail, by its number; counts them and keeps their names."""

    def __init__(self, number: int = -1) -> None:
        self.names: list[str] = []
        self._number = number

    def __call__(self, name: str) -> bool:
        self.names.append(name)
        return len(self.names) - 1 == self._number


def calls_of_a_use() -> list[str]:
    """CUDA's calls from activation to deactivation, in order."""
    with pytest.MonkeyPatch.context() as patch:
        gpu, calls = FakeGpu(), FailingCall()
        gpu.install(patch)
        gpu.fails = calls
        patch.setattr(runner, "load_engine", lambda _: FakeEngine(gpu))
        use()
    return calls.names


CALLS = list(enumerate(calls_of_a_use()))
LEAKS = {
    "cuMemFree": "memory",
    "cuEventDestroy": "event",
    "cuStreamDestroy": "stream",
    "cuGraphDestroy": "graph",
    "cuGraphExecDestroy": "exec",
}


@pytest.mark.parametrize(("number", "name"), CALLS)
def test_whichever_call_fails_the_rest_is_freed(gpu: FakeGpu, number: int, name: str) -> None:
    gpu.fails = FailingCall(number)
    if name == "cuGraphDestroy":  # the graph that was captured; the one to launch is there
        use()
    else:
        with pytest.raises(RuntimeError, match=f"{name}: CUDA_ERROR_INVALID_VALUE"):
            use()
    gc.collect()  # the error's frames
    # What a failing call did not free is all that is left.
    assert left(gpu) == ({LEAKS[name]: 1} if name in LEAKS else {})
    assert gpu.capturing == {} or name == "cuStreamEndCapture"


def test_a_runner_can_be_used_again_after_a_failure(gpu: FakeGpu) -> None:
    active = EngineRunner(ENGINE)
    gpu.fails = lambda name: name == "cuEventCreate"
    with pytest.raises(RuntimeError, match="cuEventCreate"):
        active.activate()
    gpu.fails = lambda name: name == "cuStreamDestroy"
    with pytest.raises(RuntimeError, match="cuStreamDestroy"), active:
        active.infer(feed(1), check_inputs=False)
    gpu.fails = lambda _: False
    with active:
        assert np.array_equal(active.infer(feed(1), check_inputs=False)["y"], 2 * feed(1)["x"])


def test_graphs_of_cuda_11(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    monkeypatch.setitem(sys.modules, "cuda.cuda", FakeCuda11Driver(gpu))
    use()
    assert gpu.names().count("cuGraphInstantiateWithFlags") == 1
    assert left(gpu) == {}


def test_without_cuda_python(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda.bindings.driver", "cuda.cuda"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TdcError, match="cuda-python cannot be imported"):
        EngineRunner(ENGINE).activate()


def test_an_error_that_leaves_the_context_whole_is_one_engines(gpu: FakeGpu) -> None:
    check_context("an engine", RuntimeError("refused"))
    assert "cuCtxSynchronize" in gpu.names()


def test_a_context_that_is_broken_ends_all(gpu: FakeGpu) -> None:
    gpu.fails = lambda name: name == "cuCtxSynchronize"
    with pytest.raises(ContextLostError, match="an engine broke the GPU's context: illegal access"):
        check_context("an engine", RuntimeError("illegal access"))


def meet(error: Exception) -> None:
    raise error


def test_a_form_that_breaks_the_context_is_not_just_left_out(gpu: FakeGpu) -> None:
    warnings: list[str] = []
    with or_left_out("fused", warnings):
        meet(CudaError("out of memory"))
    assert warnings == ["fused form left out: out of memory"]
    gpu.fails = lambda name: name == "cuCtxSynchronize"
    for error in (CudaError("illegal access"), TdcError("no engine")):
        with (
            pytest.raises(ContextLostError, match="the fused form broke"),
            or_left_out("reverted", warnings),
            or_left_out("fused", warnings),
        ):
            meet(error)
    assert len(warnings) == 1


def test_a_layer_that_breaks_the_context_is_named(gpu: FakeGpu) -> None:
    """Also where it is its engine's build, which runs kernels to time them."""
    wanted = [(conv_layer(name), DENSE) for name in ("a", "b", "c")]
    gpu.fails = lambda name: name == "cuCtxSynchronize"
    for where, building in (("b", True), ("c", True), ("a", False)):
        with pytest.MonkeyPatch.context() as patch, Store() as store:
            count = iter("abc")

            def build(
                *_: Any, where: str = where, count: Any = count, fails: bool = building
            ) -> Any:
                if next(count) == where and fails:
                    raise TdcError("no engine")
                return SimpleNamespace(plan=b"", inputs={}, outputs={})

            patch.setattr(backend, "build_layer", build)
            ready = SimpleNamespace(int8=False)
            patch.setattr(TensorRtBackend, "_prepared", lambda *_, ready=ready: ready)
            on = TensorRtBackend(MACHINE, EngineOptions(), {})
            profiler = LayerProfiler(on, store)
            gpu.makes_contexts = False
            with pytest.raises(TdcError, match=f"layer '{where}' as dense: .* broke the GPU"):
                profiler.latencies(wanted)
