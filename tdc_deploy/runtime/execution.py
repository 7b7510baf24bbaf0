"""One TensorRT execution context with what it needs to run: streams, buffers and a CUDA graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.arrays import DeviceView, View
from tdc_deploy.runtime.binding import check_fits
from tdc_deploy.runtime.cuda import Cuda, CudaError
from tdc_deploy.runtime.device import DeviceOwner
from tdc_deploy.runtime.device_array import LEGACY_STREAM, DeviceArray
from tdc_deploy.runtime.tensors import Shape, TensorInfo

Shapes = dict[str, Shape]


class Execution:
    """An execution context, used by one thread at a time, with the primary context current.

    It holds at most one CUDA graph: TensorRT says that a graph is void once the context it was captured
    from is given other shapes or buffers. Made and released in the owner's thread.
    """

    def __init__(
        self,
        context: Any,
        outputs: Sequence[TensorInfo],
        owner: DeviceOwner,
        cuda: Cuda,
        cuda_graphs: bool,
    ) -> None:
        self.shapes: Shapes = {}
        self._context = context
        self._outputs = outputs
        self._owner = owner
        self._cuda = cuda
        self._capturing = cuda_graphs
        # Ordered with the default stream, where torch, CuPy and pycuda work unless told otherwise.
        self._stream = cuda.make_stream(blocking=True)
        self._capture_stream = cuda.make_stream(blocking=False)
        self._done = cuda.make_event()
        self._last_stream: int | None = None
        self._buffers: dict[str, tuple[int, int]] = {}
        self._addresses: dict[str, int] = {}
        self._graph: Any = None
        self._flushed = False
        self._in_use: Any = None

    def run(
        self,
        feeds: Mapping[str, View],
        out: Mapping[str, View],
        stream: int | None,
        on_device: bool,
    ) -> dict[str, Any]:
        """Run on arrays that fit; return the fresh outputs, by name.

        Args:
            feeds: every input.
            out: the caller's buffers.
            stream: the caller's stream, or None for this context's own.
            on_device: whether fresh outputs stay on the GPU. Then nothing waits for them.

        Raises:
            TdcError: TensorRT refuses the shapes, or a buffer has another shape than the output.
        """
        self._set_shapes({name: view.shape for name, view in feeds.items()})
        shapes = {info.name: self._output_shape(info, out) for info in self._outputs}
        used = self._stream if stream is None else stream
        fresh = self._fresh(shapes, out, stream or 0, on_device)
        results = {**out, **{n: a.view() if on_device else a for n, a in fresh.items()}}
        self._wait(used, [*feeds.values(), *results.values()])
        try:
            self._enqueue(feeds, results, used)
        except BaseException:
            with suppress(CudaError):  # the error to tell is the first
                self._cuda.synchronize(used)
            raise
        if any(isinstance(view, np.ndarray) for view in results.values()):
            self._cuda.synchronize(used)
            self._in_use = None
        return fresh

    def release(self) -> None:
        """Free everything once the GPU is done with it."""
        if self._last_stream is not None:
            self._cuda.wait_here(self._done)
        self._drop_graph()
        self._context = None
        self._in_use = None
        for pointer, _ in self._buffers.values():
            self._owner.free_now(pointer)
        self._buffers.clear()
        self._cuda.destroy_event(self._done)
        self._cuda.destroy_stream(self._capture_stream)
        self._cuda.destroy_stream(self._stream)

    def _set_shapes(self, shapes: Shapes) -> None:
        if shapes == self.shapes:
            return
        self._drop_graph()
        self.shapes = {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise TdcError(f"TensorRT refuses shape {shape} for {name!r}")
        self.shapes = shapes

    def _output_shape(self, info: TensorInfo, out: Mapping[str, View]) -> Shape:
        shape = tuple(self._context.get_tensor_shape(info.name))
        if any(size < 0 for size in shape):
            raise TdcError(
                f"the shape of output {info.name!r} depends on the data: {shape}",
                expected="outputs whose shapes follow from those of the inputs",
            )
        if info.name in out:
            check_fits(TensorInfo(info.name, info.dtype, shape), out[info.name])
        return shape

    def _fresh(
        self, shapes: Shapes, out: Mapping[str, View], stream: int, on_device: bool
    ) -> dict[str, Any]:
        missing = [info for info in self._outputs if info.name not in out]
        if not on_device:
            return {info.name: np.empty(shapes[info.name], info.dtype) for info in missing}
        return {
            info.name: DeviceArray(self._owner, self._cuda, shapes[info.name], info.dtype, stream)
            for info in missing
        }

    def _wait(self, used: int, views: Sequence[View]) -> None:
        """Order this call after the one before, and after those who write the arrays."""
        if self._last_stream not in (None, used):
            self._cuda.wait(used, self._done)
        ordered = {None, used} | ({LEGACY_STREAM} if used == self._stream else set())
        streams = {view.stream for view in views if isinstance(view, DeviceView)}
        for stream in streams - ordered:
            assert stream is not None
            self._cuda.order(stream, used)

    def _enqueue(self, feeds: Mapping[str, View], results: Mapping[str, View], used: int) -> None:
        views = {**feeds, **results}
        addresses = {name: self._address(name, view) for name, view in views.items()}
        contiguous = {
            name: np.ascontiguousarray(view)
            for name, view in feeds.items()
            if isinstance(view, np.ndarray)
        }
        self._last_stream = used
        # Until the next call: what is on the GPU, or pinned, is read after this one returns.
        self._in_use = (feeds, contiguous)
        for name, array in contiguous.items():
            self._cuda.copy_to_device(addresses[name], array, used)
        self._bind(addresses)
        self._launch(used)
        for name, view in results.items():
            if isinstance(view, np.ndarray):
                self._cuda.copy_to_host(view, addresses[name], used)
        self._cuda.record(self._done, used)

    def _address(self, name: str, view: View) -> int:
        """Where TensorRT finds the tensor: an array on the GPU itself, or a buffer of our own."""
        if isinstance(view, DeviceView):
            return view.pointer
        pointer, capacity = self._buffers.get(name, (0, -1))
        if capacity < view.nbytes:
            if pointer:
                del self._buffers[name]
                self._owner.free(pointer)
            pointer = self._owner.allocate(view.nbytes)
            self._buffers[name] = (pointer, view.nbytes)
        return pointer

    def _bind(self, addresses: dict[str, int]) -> None:
        if addresses == self._addresses:
            return
        self._drop_graph()
        self._addresses = {}
        for name, pointer in addresses.items():
            if not self._context.set_tensor_address(name, pointer):
                raise TdcError(f"TensorRT refuses address {pointer:#x} for {name!r}")
        self._addresses = addresses

    def _launch(self, stream: int) -> None:
        # New shapes leave work that the next launch does, and a graph must not hold.
        if self._graph is None and self._capturing and self._flushed:
            self._graph = self._captured()
        if self._graph is not None:
            self._cuda.launch_graph(self._graph, stream)
            return
        self._execute(stream)
        self._flushed = True

    def _captured(self) -> Any:
        """The launch as a graph, or None if the engine holds what cannot be captured."""
        try:
            with self._cuda.capture(self._capture_stream) as graphs:
                self._execute(self._capture_stream)
            return graphs[0]
        except (CudaError, TdcError):
            self._capturing = False
            return None

    def _execute(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise TdcError(
                "TensorRT did not run the engine; its log says why",
                expected="inputs within the engine's ranges, and enough GPU memory",
            )

    def _drop_graph(self) -> None:
        self._flushed = False
        if self._graph is not None:
            self._cuda.destroy_graph(self._graph)
            self._graph = None
