"""Run an engine to verify it, and time it by CUDA events around replays of a CUDA graph.

Polygraphy's own runner for TensorRT times with the host's clock around Python, copies and a
synchronisation: more than a small network takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner

from tdc_deploy.backends.tensorrt.cuda import Cuda
from tdc_deploy.backends.tensorrt.engine import Engine, Tensors, load_engine
from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.measure import Feeds

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
    """An execution context at one set of input shapes, its device buffers and its graph."""

    context: Any
    buffers: dict[str, int]
    outputs: dict[str, NDArray[Any]]
    graph: Any


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
        self._allocated: list[int] = []

    def activate_impl(self) -> None:
        """Load the engine; Polygraphy's `activate` calls this."""
        self._cuda = Cuda()
        self._engine = load_engine(self._built.plan)
        self._stream = self._cuda.cudaStreamCreate()
        self._events = [self._cuda.cudaEventCreate() for _ in range(2)]
        self._scratch = self._allocate(self._flush_bytes) if self._flush_bytes else 0

    def deactivate_impl(self) -> None:
        """Free what `activate_impl` and runs made, the contexts first."""
        for captured in self._captured.values():
            self._cuda.cudaGraphExecDestroy(captured.graph)
            captured.context = None
        self._captured.clear()
        for pointer in self._allocated:
            self._cuda.cudaFree(pointer)
        self._allocated.clear()
        for event in self._events:
            self._cuda.cudaEventDestroy(event)
        self._cuda.cudaStreamDestroy(self._stream)
        self._engine = None

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
        captured = self._at(feeds)
        kinds = self._cuda.names.cudaMemcpyKind
        for name, value in feeds.items():
            self._copy(
                captured.buffers[name],
                value.ctypes.data,
                value.nbytes,
                kinds.cudaMemcpyHostToDevice,
            )
        if self._scratch:
            self._cuda.cudaMemsetAsync(self._scratch, 0, self._flush_bytes, self._stream)
        self._cuda.cudaEventRecord(self._events[0], self._stream)
        self._cuda.cudaGraphLaunch(captured.graph, self._stream)
        self._cuda.cudaEventRecord(self._events[1], self._stream)
        results = {name: np.empty_like(value) for name, value in captured.outputs.items()}
        for name, value in results.items():
            self._copy(
                value.ctypes.data,
                captured.buffers[name],
                value.nbytes,
                kinds.cudaMemcpyDeviceToHost,
            )
        self._cuda.cudaStreamSynchronize(self._stream)
        self.inference_time = self._cuda.cudaEventElapsedTime(*self._events) * 1e-3
        return results

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        self._cuda.cudaMemcpyAsync(target, source, size, kind, self._stream)

    def _at(self, feeds: Feeds) -> _Captured:
        shapes = tuple((name, value.shape) for name, value in sorted(feeds.items()))
        if shapes not in self._captured:
            self._captured[shapes] = self._capture(feeds)
        return self._captured[shapes]

    def _capture(self, feeds: Feeds) -> _Captured:
        context = self._engine.create_execution_context()
        if context is None:
            raise RuntimeError("TensorRT made no execution context; its messages are above")
        buffers = {}
        for name, value in feeds.items():
            if not context.set_input_shape(name, value.shape):
                raise RuntimeError(f"TensorRT refuses shape {value.shape} for {name!r}")
            buffers[name] = self._allocate(value.nbytes)
        outputs = {}
        for name, (dtype, _) in self._built.outputs.items():
            shape = tuple(context.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise TdcError(
                    f"the size of output {name!r} depends on values: {list(shape)}",
                    expected="outputs whose sizes follow from those of the inputs",
                )
            outputs[name] = np.empty(shape, np.dtype(dtype))
            buffers[name] = self._allocate(outputs[name].nbytes)
        for name, pointer in buffers.items():
            context.set_tensor_address(name, pointer)
        # The first run may allocate and load kernels, which a capture must not hold.
        self._enqueue(context)
        self._cuda.cudaStreamSynchronize(self._stream)
        mode = self._cuda.names.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._cuda.cudaStreamBeginCapture(self._stream, mode)
        try:
            self._enqueue(context)
        finally:  # also after a failure: a stream that captures can do nothing else
            graph = self._cuda.cudaStreamEndCapture(self._stream)
        made = self._cuda.cudaGraphInstantiate(graph, 0)
        self._cuda.cudaGraphDestroy(graph)
        return _Captured(context, buffers, outputs, made)

    def _enqueue(self, context: Any) -> None:
        if not context.execute_async_v3(int(self._stream)):
            raise RuntimeError("TensorRT could not run the engine; its messages are above")

    def _allocate(self, size: int) -> int:
        pointer = int(self._cuda.cudaMalloc(max(size, 1)))
        self._allocated.append(pointer)
        return pointer
