"""Run an engine to verify it, and time it by CUDA events around replays of a CUDA graph.

Polygraphy's own runner for TensorRT times with the host's clock around Python, copies and a
synchronisation: more than a small network takes.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner

from tdc_deploy.backends.tensorrt.engine import Engine, Tensors, load_engine
from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.measure import Feeds
from tdc_deploy.runtime.cuda import Cuda

# More than any L2 cache holds, and longer than a launch takes to write.
FLUSH_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Runnable:
    """An engine as its file and its sidecar tell; the fields are those of `Engine`."""

    plan: bytes
    inputs: Tensors
    outputs: Tensors


@dataclass
class _Captured:
    """An execution context at one set of input shapes, its device buffers and its graph.

    Nothing else refers to the context, not even an error's frames: it must be gone before its engine.
    """

    context: Any
    buffers: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, NDArray[Any]] = field(default_factory=dict)
    graph: Any = None

    def drop_context(self) -> None:
        """TensorRT frees it with its last reference."""
        self.context = None


class EngineRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy has no types
    """A Polygraphy runner of an engine. `last_inference_time` is in seconds, without copies to and from
    the device, as trtexec --useCudaGraph --noDataTransfers measures.

    `flush_bytes` are overwritten before each run. With more than the L2 cache holds, it is cold; and
    while that lasts the graph is launched, so that the launch is not in the time.
    """

    def __init__(
        self, engine: Engine | Runnable, name: str = "engine", flush_bytes: int = 0
    ) -> None:
        super().__init__(name=name)
        self._built = engine
        self._flush_bytes = flush_bytes
        self._captured: dict[tuple[Any, ...], _Captured] = {}
        # What there is to free; it is freed in the reverse order, each thing also where another fails.
        self._made = ExitStack()

    def activate_impl(self) -> None:
        """Load the engine; Polygraphy's `activate` calls this. A failure leaves nothing behind."""
        with ExitStack() as made:
            self._cuda = Cuda()
            self._cuda.make_current(0)
            self._engine = load_engine(self._built.plan)
            made.callback(self._drop_engine)
            self._stream = self._cuda.make_stream(blocking=False)
            made.callback(self._cuda.destroy_stream, self._stream)
            self._events = [self._make_event(made) for _ in range(2)]
            self._scratch = self._allocate(self._flush_bytes, made) if self._flush_bytes else 0
            self._made = made.pop_all()

    def deactivate_impl(self) -> None:
        """Free what `activate_impl` and runs made."""
        self._captured.clear()
        self._made.close()

    def _drop_engine(self) -> None:
        self._engine = None

    def _make_event(self, made: ExitStack) -> int:
        event = self._cuda.make_event(timed=True)
        made.callback(self._cuda.destroy_event, event)
        return event

    def _allocate(self, size: int, made: ExitStack) -> int:
        pointer = self._cuda.allocate(size)
        made.callback(self._cuda.free, pointer)
        return pointer

    def get_input_metadata_impl(self) -> Any:
        """Names, types and shapes of the inputs, for Polygraphy."""
        from polygraphy.common import TensorMetadata

        metadata = TensorMetadata()
        for name, (dtype, shape) in self._built.inputs.items():
            metadata.add(name, np.dtype(dtype), shape)
        return metadata

    def infer_impl(self, feed_dict: Feeds) -> dict[str, NDArray[Any]]:
        """Copy in, replay, copy out; Polygraphy's `infer` calls this."""
        feeds = {
            name: np.ascontiguousarray(feed_dict[name], np.dtype(dtype))
            for name, (dtype, _) in self._built.inputs.items()
        }
        captured, cuda = self._at(feeds), self._cuda
        for name, value in feeds.items():
            cuda.copy_to_device(captured.buffers[name], value, self._stream)
        if self._scratch:
            cuda.clear(self._scratch, self._flush_bytes, self._stream)
        cuda.record(self._events[0], self._stream)
        cuda.launch_graph(captured.graph, self._stream)
        cuda.record(self._events[1], self._stream)
        results = {name: np.empty_like(value) for name, value in captured.outputs.items()}
        for name, value in results.items():
            cuda.copy_to_host(value, captured.buffers[name], self._stream)
        cuda.synchronize(self._stream)
        self.inference_time = cuda.milliseconds(*self._events) * 1e-3
        return results

    def _at(self, feeds: Feeds) -> _Captured:
        shapes = tuple((name, value.shape) for name, value in sorted(feeds.items()))
        if shapes not in self._captured:
            with ExitStack() as made:
                self._captured[shapes] = self._capture(feeds, made)
                self._made.push(made.pop_all())
        return self._captured[shapes]

    def _capture(self, feeds: Feeds, made: ExitStack) -> _Captured:
        captured = _Captured(self._engine.create_execution_context())
        made.callback(captured.drop_context)
        if captured.context is None:
            raise RuntimeError("TensorRT made no execution context; its messages are above")
        self._bind(captured, feeds, made)
        # The first run may allocate and load kernels, which a capture must not hold.
        self._enqueue(captured)
        self._cuda.synchronize(self._stream)
        with self._cuda.capture(self._stream) as graphs:
            self._enqueue(captured)
        (captured.graph,) = graphs
        made.callback(self._cuda.destroy_graph, captured.graph)
        return captured

    def _bind(self, captured: _Captured, feeds: Feeds, made: ExitStack) -> None:
        """Give the context its input shapes, and every tensor a buffer."""
        for name, value in feeds.items():
            if not captured.context.set_input_shape(name, value.shape):
                raise RuntimeError(f"TensorRT refuses shape {value.shape} for {name!r}")
            captured.buffers[name] = self._allocate(value.nbytes, made)
        for name, (dtype, _) in self._built.outputs.items():
            shape = tuple(captured.context.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise TdcError(
                    f"the size of output {name!r} depends on values: {list(shape)}",
                    expected="outputs whose sizes follow from those of the inputs",
                )
            captured.outputs[name] = np.empty(shape, np.dtype(dtype))
            captured.buffers[name] = self._allocate(captured.outputs[name].nbytes, made)
        for name, pointer in captured.buffers.items():
            captured.context.set_tensor_address(name, pointer)

    def _enqueue(self, captured: _Captured) -> None:
        if not captured.context.execute_async_v3(self._stream):
            raise RuntimeError("TensorRT could not run the engine; its messages are above")
