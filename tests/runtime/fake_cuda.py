"""A stand-in for cuda.bindings.driver of cuda-python: each call returns (error, value…)."""

# ruff: noqa: ARG002  # signatures are the driver's

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import Any

from tests.runtime.fake_gpu import PRIMARY, FakeGpu


class Result(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class StreamFlags(IntEnum):
    CU_STREAM_DEFAULT = 0
    CU_STREAM_NON_BLOCKING = 1


class EventFlags(IntEnum):
    CU_EVENT_DEFAULT = 0
    CU_EVENT_DISABLE_TIMING = 2


class CaptureMode(IntEnum):
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


class PointerAttribute(IntEnum):
    CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9


def traced(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """A function of the driver: needs a context, is recorded, says how it went."""

    @wraps(function)
    def call(self: FakeCudaDriver, *arguments: Any) -> tuple[Any, ...]:
        self.gpu.need_context(function.__name__)
        if self.gpu.fails(function.__name__):
            return (Result.CUDA_ERROR_INVALID_VALUE, None)
        value = function(self, *arguments)
        if isinstance(value, Result):
            return (value, None)
        # Not the graphs: they hold their execution context.
        self.gpu.record(function.__name__, *(a for a in arguments if isinstance(a, int)))
        return (Result.CUDA_SUCCESS,) if value is None else (Result.CUDA_SUCCESS, value)

    return call


class FakeCudaDriver:
    """cuda.bindings.driver."""

    CUstream_flags = StreamFlags
    CUevent_flags = EventFlags
    CUstreamCaptureMode = CaptureMode
    CUpointer_attribute = PointerAttribute

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.blocking: dict[int, bool] = {}
        self.timed: dict[int, bool] = {}

    def cuInit(self, flags: int) -> tuple[Result]:
        assert flags == 0
        return (Result.CUDA_ERROR_INVALID_VALUE if self.gpu.fails("cuInit") else Result(0),)

    def cuDeviceGet(self, ordinal: int) -> tuple[Result, str]:
        return (Result.CUDA_SUCCESS, f"device {ordinal}")

    def cuDevicePrimaryCtxRetain(self, device: str) -> tuple[Result, str]:
        assert device == "device 0"
        return (Result.CUDA_SUCCESS, PRIMARY)

    def cuCtxSetCurrent(self, context: str) -> tuple[Result]:
        self.gpu.stack[-1:] = [context]
        return (Result.CUDA_SUCCESS,)

    @traced
    def cuMemAlloc(self, nbytes: int) -> int:
        self.gpu.handle("memory")
        return self.gpu.allocate(nbytes)

    @traced
    def cuMemFree(self, pointer: int) -> None:
        del self.gpu.memory[pointer]
        self.gpu.destroy("memory")

    @traced
    def cuMemsetD8Async(self, pointer: int, value: int, nbytes: int, stream: int) -> None:
        ctypes.memset(pointer, value, nbytes)

    @traced
    def cuStreamCreate(self, flags: int) -> int:
        stream = self.gpu.handle("stream")
        self.blocking[stream] = flags == StreamFlags.CU_STREAM_DEFAULT
        return stream

    @traced
    def cuStreamDestroy(self, stream: int) -> None:
        del self.blocking[stream]
        self.gpu.destroy("stream")

    @traced
    def cuStreamSynchronize(self, stream: int) -> None:
        pass

    @traced
    def cuCtxSynchronize(self) -> None:
        pass

    @traced
    def cuStreamWaitEvent(self, stream: int, event: int, flags: int) -> None:
        pass

    @traced
    def cuEventCreate(self, flags: int) -> int:
        event = self.gpu.handle("event")
        self.timed[event] = flags == EventFlags.CU_EVENT_DEFAULT
        return event

    @traced
    def cuEventElapsedTime(self, first: int, second: int) -> float:
        assert self.timed[first] and self.timed[second]
        return 0.25  # milliseconds

    @traced
    def cuEventDestroy(self, event: int) -> None:
        self.gpu.destroy("event")

    @traced
    def cuEventRecord(self, event: int, stream: int) -> None:
        pass

    @traced
    def cuEventSynchronize(self, event: int) -> None:
        pass

    @traced
    def cuMemcpyHtoDAsync(self, to: int, source: int, nbytes: int, stream: int) -> None:
        ctypes.memmove(to, source, nbytes)

    @traced
    def cuMemcpyDtoHAsync(self, to: int, source: int, nbytes: int, stream: int) -> None:
        ctypes.memmove(to, source, nbytes)

    @traced
    def cuStreamBeginCapture(self, stream: int, mode: int) -> None:
        assert mode == CaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        if self.blocking.get(stream, True):
            self.gpu.violations.append("captured on a blocking stream")
        self.gpu.capturing[stream] = []

    @traced
    def cuStreamEndCapture(self, stream: int) -> Any:
        work = self.gpu.capturing.pop(stream)
        if self.gpu.refuse_capture:
            return Result.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
        self.gpu.handle("graph")
        return work

    @traced
    def cuGraphInstantiate(self, work: list[Callable[[], None]], flags: int) -> Any:
        assert flags == 0
        self.gpu.handle("exec")
        return tuple(work)

    @traced
    def cuGraphLaunch(self, work: tuple[Callable[[], None], ...], stream: int) -> None:
        for step in work:
            step()

    @traced
    def cuGraphDestroy(self, graph: Any) -> None:
        self.gpu.destroy("graph")

    @traced
    def cuGraphExecDestroy(self, graph: Any) -> None:
        self.gpu.destroy("exec")

    @traced
    def cuPointerGetAttribute(self, attribute: int, pointer: int) -> Any:
        assert attribute == PointerAttribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        blocks = self.gpu.memory.items()
        if any(start <= pointer < start + block.nbytes for start, block in blocks):
            return 0
        return Result.CUDA_ERROR_INVALID_VALUE


class FakeCuda11Driver(FakeCudaDriver):
    """As cuda-python 11.8 has it: instantiating with flags has a name of its own."""

    def cuGraphInstantiate(self, work: Any, log: bytes, size: int) -> Any:
        raise AssertionError("this one takes a buffer for a log")

    @traced
    def cuGraphInstantiateWithFlags(self, work: list[Callable[[], None]], flags: int) -> Any:
        assert flags == 0
        self.gpu.handle("exec")
        return tuple(work)
