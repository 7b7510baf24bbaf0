"""A stand-in for TensorRT's Python module, with an engine of y = 2 x."""

from __future__ import annotations

import ctypes
import threading
from enum import IntEnum
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.runtime.fake_gpu import ALIGNMENT, FakeGpu

Shape = tuple[int, ...]


class DataType(IntEnum):
    FLOAT = 0
    HALF = 1
    BF16 = 2


class TensorIOMode(IntEnum):
    INPUT = 1
    OUTPUT = 2


class TensorLocation(IntEnum):
    DEVICE = 0
    HOST = 1


class TensorFormat(IntEnum):
    LINEAR = 0
    HWC8 = 1


class ILogger:
    INTERNAL_ERROR, ERROR = 0, 1


class ExecutionContext:
    def __init__(self, gpu: FakeGpu) -> None:
        gpu.need_context("create_execution_context")
        gpu.handle("context")
        gpu.contexts_made += 1
        self.gpu = gpu
        self.shape: Shape = ()
        self.addresses: dict[str, int] = {}
        self.busy = threading.Lock()

    def __del__(self) -> None:
        self.gpu.need_context("~IExecutionContext")
        self.gpu.destroy("context")

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self.gpu.record("set_input_shape", name, shape)
        self.shape = shape
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        assert name != "x"
        return (-1,) if self.gpu.data_dependent else self.shape

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        if pointer % ALIGNMENT:
            self.gpu.violations.append("a tensor that is not aligned")
        self.addresses[name] = pointer
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.gpu.need_context("execute_async_v3")
        self.gpu.record("execute", stream)
        work = partial(self.compute, self.shape, dict(self.addresses))
        if stream in self.gpu.capturing:
            self.gpu.capturing[stream].append(work)
        else:
            work()
        return self.gpu.executes

    def compute(self, shape: Shape, addresses: dict[str, int]) -> None:
        if not self.busy.acquire(blocking=False):
            self.gpu.violations.append("one execution context in two threads")
            return
        if self.gpu.gate is not None:
            self.gpu.gate.wait(10)
        x = np.empty(shape, np.float16 if self.gpu.dtype == "HALF" else np.float32)
        ctypes.memmove(x.ctypes.data, addresses["x"], x.nbytes)
        for name, factor in (("y", 2), ("y2", -1)):
            if name in addresses:
                result = x * x.dtype.type(factor)
                ctypes.memmove(addresses[name], result.ctypes.data, result.nbytes)
        self.busy.release()


class CudaEngine:
    def __init__(self, gpu: FakeGpu) -> None:
        gpu.handle("engine")
        self.gpu = gpu
        self.names = ["x", "y", "y2"] if gpu.two_outputs else ["x", "y"]
        self.num_io_tensors = len(self.names)

    def __del__(self) -> None:
        self.gpu.need_context("~ICudaEngine")
        self.gpu.destroy("engine")
        if self.gpu.alive.get("context"):
            self.gpu.violations.append("an engine destroyed before its contexts")

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "x" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        assert name in self.names
        return DataType[self.gpu.dtype]

    def get_tensor_shape(self, name: str) -> Shape:
        assert name in self.names
        return (-1, 3)

    def get_tensor_location(self, name: str) -> TensorLocation:
        assert name in self.names
        return TensorLocation.DEVICE

    def get_tensor_format(self, name: str) -> TensorFormat:
        assert name in self.names
        return TensorFormat[self.gpu.format]

    def is_shape_inference_io(self, name: str) -> bool:
        return name not in self.names

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Shape]:
        assert (name, profile) == ("x", 0)
        return [(1, 3), (4, 3), (8, 3)]

    def create_execution_context(self) -> ExecutionContext | None:
        return ExecutionContext(self.gpu) if self.gpu.makes_contexts else None


class Runtime:
    def __init__(self, gpu: FakeGpu, logger: Any) -> None:
        self.gpu = gpu
        self.logger = logger

    def deserialize_cuda_engine(self, content: bytes) -> CudaEngine | None:
        self.gpu.need_context("deserialize_cuda_engine")
        self.gpu.record("deserialize")
        if content != b"engine":
            self.logger.log(ILogger.ERROR, "magic tag does not match")
            return None
        return CudaEngine(self.gpu)


class Registry:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.all_creators = gpu.creators

    def load_library(self, path: str) -> Any:
        self.gpu.record("load_library", path)
        if "wrong" not in path:
            names = ("TuckerConv", "TuckerConvAdd")
            self.gpu.creators += [SimpleNamespace(name=name, plugin_namespace="") for name in names]
        return object()


class FakeTensorRt:
    """The module."""

    TensorIOMode = TensorIOMode
    TensorLocation = TensorLocation
    TensorFormat = TensorFormat
    ILogger = ILogger

    def __init__(self, gpu: FakeGpu) -> None:
        self.__version__ = gpu.version
        self.Runtime = partial(Runtime, gpu)
        self.get_plugin_registry = partial(Registry, gpu)
