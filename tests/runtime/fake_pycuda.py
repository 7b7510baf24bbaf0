"""A stand-in for pycuda.driver with its thread rules."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from tests.runtime.fake_gpu import PRIMARY, FakeGpu


class PycudaError(Exception):
    """pycuda.driver.Error."""


class PycudaMemoryError(PycudaError):
    """pycuda.driver.MemoryError."""


class Context:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.thread = threading.get_ident()

    def push(self) -> None:
        if self.thread != threading.get_ident():
            self.gpu.violations.append("a context pushed by another thread")
        self.gpu.stack.append(PRIMARY)
        self.gpu.record("push", threading.get_ident())

    def pop(self) -> None:
        self.gpu.stack.pop()
        self.gpu.record("pop", threading.get_ident())


class Device:
    def __init__(self, gpu: FakeGpu, number: int) -> None:
        self.gpu = gpu
        self.number = number

    def compute_capability(self) -> tuple[int, int]:
        return self.gpu.compute_capability

    def retain_primary_context(self) -> Context:
        self.gpu.record("retain", threading.get_ident())
        return Context(self.gpu)


class Allocation:
    def __init__(self, gpu: FakeGpu, nbytes: int) -> None:
        gpu.need_context("mem_alloc")
        self.gpu = gpu
        self.thread = threading.get_ident()
        self.pointer = gpu.allocate(nbytes)
        gpu.record("allocate", self.pointer, nbytes)

    def __int__(self) -> int:
        return self.pointer

    def free(self) -> None:
        self.gpu.need_context("free")
        if self.thread != threading.get_ident():
            self.gpu.violations.append("freed by another thread than the one that allocated")
        if self.pointer in self.gpu.freed:
            self.gpu.violations.append("freed twice")
        self.gpu.freed.append(self.pointer)
        self.gpu.record("free", self.pointer)


class FakePycudaDriver:
    """pycuda.driver."""

    Error = PycudaError
    MemoryError = PycudaMemoryError

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        device: Any = partial(Device, gpu)
        device.count = lambda: 1
        self.Device = device

    def init(self) -> None:
        pass

    def mem_alloc(self, nbytes: int) -> Allocation:
        if nbytes > self.gpu.limit:
            raise PycudaMemoryError("out of memory")
        return Allocation(self.gpu, nbytes)
