"""CUDA by address through cuda-python, from 11.8 on: memory, and events and graphs on anyone's streams.

Every function needs the device's context to be current in the calling thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.arrays import address
from tdc_deploy.runtime.libraries import cuda_driver


class CudaError(RuntimeError):
    """A call that CUDA refused."""


class ContextLostError(TdcError):
    """A kernel broke the GPU's context: every later call of this process fails."""


class Cuda:
    """The driver's functions that running an engine takes. Streams and events are addresses.

    Raises:
        TdcError: cuda-python is not installed.
    """

    def __init__(self) -> None:
        self._driver = cuda_driver()

    def make_current(self, device: int) -> None:
        """Make a GPU's primary context current in this thread, as CUDA's runtime does on a first call.

        That context, which TensorRT and torch work in too, is kept until the process ends.
        """
        self._call("cuInit", 0)
        context = self._call("cuDevicePrimaryCtxRetain", self._call("cuDeviceGet", device))
        self._call("cuCtxSetCurrent", context)

    def allocate(self, nbytes: int) -> int:
        """The address of new GPU memory."""
        return int(self._call("cuMemAlloc", max(nbytes, 1)))

    def free(self, pointer: int) -> None:
        """Free what `allocate` gave, when what uses it is done."""
        self._call("cuMemFree", pointer)

    def clear(self, pointer: int, nbytes: int, stream: int) -> None:
        """Overwrite GPU memory with zeros."""
        self._call("cuMemsetD8Async", pointer, 0, nbytes, stream)

    def make_stream(self, *, blocking: bool) -> int:
        """A stream; a blocking one is ordered with CUDA's default stream."""
        flags = self._driver.CUstream_flags
        flag = flags.CU_STREAM_DEFAULT if blocking else flags.CU_STREAM_NON_BLOCKING
        return int(self._call("cuStreamCreate", int(flag)))

    def destroy_stream(self, stream: int) -> None:
        """Free a stream when what is on it is done."""
        self._call("cuStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Wait until all work on the stream is done."""
        self._call("cuStreamSynchronize", stream)

    def synchronize_context(self) -> None:
        """Wait until all work in the thread's context is done."""
        self._call("cuCtxSynchronize")

    def make_event(self, *, timed: bool = False) -> int:
        """An event; only between timed ones can time be told."""
        flags = self._driver.CUevent_flags
        flag = flags.CU_EVENT_DEFAULT if timed else flags.CU_EVENT_DISABLE_TIMING
        return int(self._call("cuEventCreate", int(flag)))

    def destroy_event(self, event: int) -> None:
        """Free an event."""
        self._call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """Let the event stand for all work that is on the stream now."""
        self._call("cuEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """Later work on the stream starts after the event."""
        self._call("cuStreamWaitEvent", stream, event, 0)

    def milliseconds(self, first: int, second: int) -> float:
        """The time between two timed events that are done."""
        return float(self._call("cuEventElapsedTime", first, second))

    def wait_here(self, event: int) -> None:
        """Wait in this thread until the event is done."""
        self._call("cuEventSynchronize", event)

    def order(self, first: int, then: int) -> None:
        """Later work on the stream `then` starts after what is on `first` now."""
        event = self.make_event()
        try:
            self.record(event, first)
            self.wait(then, event)
        finally:
            self.destroy_event(event)

    def copy_to_device(self, pointer: int, array: NDArray[Any], stream: int) -> None:
        """Copy a contiguous array; pageable memory may change as soon as this returns."""
        self._call("cuMemcpyHtoDAsync", pointer, address(array), array.nbytes, stream)

    def copy_to_host(self, array: NDArray[Any], pointer: int, stream: int) -> None:
        """Copy into a contiguous array, which holds the data once the stream is synchronised."""
        self._call("cuMemcpyDtoHAsync", address(array), pointer, array.nbytes, stream)

    def device_of(self, pointer: int) -> int | None:
        """The GPU that this memory is on; None if CUDA does not know the address."""
        attribute = self._driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        error, ordinal = self._driver.cuPointerGetAttribute(attribute, pointer)
        return int(ordinal) if int(error) == 0 else None

    @contextmanager
    def capture(self, stream: int) -> Iterator[list[Any]]:
        """Capture what is launched on the stream; the list then holds the graph, ready to launch.

        The stream must not be a blocking one: another thread's work on the default stream would
        break the capture, and be refused.

        Raises:
            CudaError: something was launched that a graph cannot hold.
        """
        graphs: list[Any] = []
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)
        try:
            yield graphs
        except BaseException:
            with suppress(CudaError):  # else the stream would stay in capture
                self._call("cuGraphDestroy", self._call("cuStreamEndCapture", stream))
            raise
        graph = self._call("cuStreamEndCapture", stream)
        try:
            graphs.append(self._instantiated(graph))
        finally:
            with suppress(CudaError):  # of an earlier launch: the next call gives it too
                self._call("cuGraphDestroy", graph)

    def launch_graph(self, graph: Any, stream: int) -> None:
        """Launch what was captured."""
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        """Free an instantiated graph."""
        self._call("cuGraphExecDestroy", graph)

    def _instantiated(self, graph: Any) -> Any:
        # CUDA 12 gave the name to the function with flags; CUDA 11's takes a buffer for a log.
        of_cuda_11 = hasattr(self._driver, "cuGraphInstantiateWithFlags")
        name = "cuGraphInstantiateWithFlags" if of_cuda_11 else "cuGraphInstantiate"
        return self._call(name, graph, 0)

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._driver, name)(*arguments)
        if int(error) != 0:
            raise CudaError(f"{name}: {getattr(error, 'name', error)}")
        return values[0] if values else None


def check_context(what: str, error: Exception) -> None:
    """Raise ContextLostError if the GPU's context is broken since `error`, which `what` met.

    After an illegal access or a failed launch all that follows would fail, and be taken for bad too.
    """
    if isinstance(error, ContextLostError):
        raise error
    try:
        cuda = Cuda()
    except TdcError:
        return  # nothing ran on a GPU
    try:
        cuda.make_current(0)
        cuda.synchronize_context()
    except CudaError as found:
        raise ContextLostError(
            f"{what} broke the GPU's context: {error} ({found})",
            expected="a kernel that stays within its memory",
            fix="start again, without it: nothing runs in this process any more, and what was measured "
            "before is kept",
        ) from error


def stream_address(stream: Any) -> int:
    """The address of a CUDA stream: an int, or a stream of torch, CuPy, pycuda or cuda-python.

    Raises:
        TdcError: it is none.
    """
    if isinstance(stream, int) and not isinstance(stream, bool):
        return stream
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        return int((protocol() if callable(protocol) else protocol)[1])
    for attribute in ("cuda_stream", "ptr", "handle"):  # torch, CuPy, pycuda
        if hasattr(stream, attribute):
            return int(getattr(stream, attribute))
    raise TdcError(
        f"stream is {type(stream).__name__}",
        expected="a CUDA stream of torch, CuPy, pycuda or cuda-python, or its address",
    )
