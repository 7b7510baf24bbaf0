"""Running an engine, with CUDA's calls on host memory and a TensorRT context that doubles its input."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tdc_deploy.backends.tensorrt import cuda, runner
from tdc_deploy.backends.tensorrt.cuda import Cuda
from tdc_deploy.backends.tensorrt.engine import Engine
from tdc_deploy.backends.tensorrt.precision import BuiltPrecision
from tdc_deploy.backends.tensorrt.runner import EngineRunner
from tdc_deploy.errors import TdcError

ENGINE = Engine(
    b"plan",
    "10.9.0",
    BuiltPrecision("fp32", {}),
    (),
    {"x": ("float32", (-1, 3))},
    {"y": ("float16", (-1, 3))},
)
KINDS = SimpleNamespace(cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out")


class FakeRuntime:
    """CUDA's runtime, synchronous and in host memory. A graph replays what was enqueued while capturing."""

    def __init__(self) -> None:
        self.cudaMemcpyKind = KINDS
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="local")
        self.log: list[str] = []
        self.memory: dict[int, Any] = {}
        self.captured: list[Any] | None = None
        self.fail = ""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.log.append(name)
            if name == self.fail:
                return (2,)
            made = getattr(self, f"_{name}", lambda *_: (f"a {name}",))(*arguments)
            return (0, *made)

        return call

    def enqueue(self, work: Any) -> None:
        if self.captured is None:
            work()
        else:
            self.captured.append(work)

    def _cudaStreamCreate(self) -> tuple[int]:
        return (7,)

    def _cudaMalloc(self, size: int) -> tuple[int]:
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return (ctypes.addressof(buffer),)

    def _cudaFree(self, pointer: int) -> tuple[()]:
        del self.memory[pointer]
        return ()

    def _cudaMemcpyAsync(self, to: int, at: int, size: int, kind: str, _stream: int) -> tuple[()]:
        assert kind in ("in", "out")
        device = to if kind == "in" else at
        assert device in self.memory and size <= len(self.memory[device])
        ctypes.memmove(to, at, size)
        return ()

    def _cudaStreamBeginCapture(self, _stream: int, _mode: str) -> tuple[()]:
        self.captured = []
        return ()

    def _cudaStreamEndCapture(self, _stream: int) -> tuple[Any]:
        captured, self.captured = self.captured, None
        return (captured,)

    def _cudaGraphInstantiate(self, graph: Any, _flags: int) -> tuple[Any]:
        return (graph,)

    def _cudaGraphLaunch(self, graph: Any, _stream: int) -> tuple[()]:
        for work in graph:
            work()
        return ()

    def _cudaEventElapsedTime(self, *_events: Any) -> tuple[float]:
        return (0.25,)


class FakeContext:
    """y = 2 x, in float16."""

    def __init__(self, runtime: FakeRuntime) -> None:
        self._runtime = runtime
        self._shape: tuple[int, ...] = ()
        self._at: dict[str, int] = {}

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
        assert stream == 7
        self._runtime.enqueue(self._work)
        return True

    def _work(self) -> None:
        count = int(np.prod(self._shape))
        x = np.ctypeslib.as_array((ctypes.c_float * count).from_address(self._at["x"]))
        y = np.ctypeslib.as_array((ctypes.c_uint16 * count).from_address(self._at["y"]))
        y[:] = (2 * x).astype(np.float16).view(np.uint16)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRuntime]:
    made = FakeRuntime()
    engine = SimpleNamespace(create_execution_context=lambda: FakeContext(made))
    monkeypatch.setattr(cuda, "_runtime", lambda: made)
    monkeypatch.setattr(runner, "load_engine", lambda _: engine)
    yield made
    assert not made.memory, "every buffer is freed"


def feed(rows: int, scale: float = 1.0) -> dict[str, Any]:
    return {"x": scale * np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)}


def test_outputs_are_those_of_the_replayed_graph(runtime: FakeRuntime) -> None:
    with EngineRunner(ENGINE) as active:
        for scale in (1.0, 3.0):
            y = active.infer(feed(2, scale), check_inputs=False)["y"]
            assert y.dtype == np.float16
            assert np.array_equal(y, 2 * feed(2, scale)["x"])
        assert active.last_inference_time() == pytest.approx(0.25e-3)
    assert runtime.log.count("cudaGraphInstantiate") == 1
    assert runtime.log.count("cudaGraphLaunch") == 2


def test_only_the_graph_is_timed(runtime: FakeRuntime) -> None:
    with EngineRunner(ENGINE, flush_bytes=64) as active:
        active.infer(feed(2), check_inputs=False)
    first = runtime.log.index("cudaEventRecord")
    assert runtime.log[first : first + 3] == [
        "cudaEventRecord",
        "cudaGraphLaunch",
        "cudaEventRecord",
    ]
    assert runtime.log[first - 1] == "cudaMemsetAsync"


def test_each_shape_has_a_graph_of_its_own(runtime: FakeRuntime) -> None:
    with EngineRunner(ENGINE) as active:
        for rows in (1, 4, 1):
            y = active.infer(feed(rows), check_inputs=False)["y"]
            assert np.array_equal(y, 2 * feed(rows)["x"])
    assert runtime.log.count("cudaGraphInstantiate") == 2


def test_other_layouts_are_copied_right(runtime: FakeRuntime) -> None:
    x = np.asfortranarray(feed(4)["x"].astype(np.float64))
    with EngineRunner(ENGINE) as active:
        assert np.array_equal(active.infer({"x": x}, check_inputs=False)["y"], 2 * x)
    assert runtime.log


def test_a_shape_that_the_engine_refuses(runtime: FakeRuntime) -> None:
    with (
        EngineRunner(ENGINE) as active,
        pytest.raises(RuntimeError, match=r"refuses shape \(9, 3\) for 'x'"),
    ):
        active.infer(feed(9), check_inputs=False)
    assert "cudaGraphLaunch" not in runtime.log


def test_an_error_of_cuda_is_raised(runtime: FakeRuntime) -> None:
    runtime.fail = "cudaGraphLaunch"
    with EngineRunner(ENGINE) as active, pytest.raises(RuntimeError, match="cudaGraphLaunch: 2"):
        active.infer(feed(1), check_inputs=False)


def test_without_cuda_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_MODULES", ("no_such_module",))
    with pytest.raises(TdcError, match="cuda-python is not installed"):
        Cuda()
