"""Stand-ins for tensorrt, pycuda and cuda-python that check their rules and record the calls.

GPU memory is host memory, so that copies copy. Streams run at once. The engine computes y = 2 x, and
y2 = -x where it has two outputs. Broken rules of the real libraries (a context that is not current, a
release in another thread than the maker's) are collected in `violations`.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

PRIMARY = "primary"
ALIGNMENT = 256
LEGACY = 1


class FakeGpu:
    """The state of the machine, and the modules to put into sys.modules."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.violations: list[str] = []
        self.compute_capability = (9, 0)
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.freed: list[int] = []
        self.limit = 1 << 30
        self.contexts_made = 0
        self.alive: dict[str, int] = {}
        self.capturing: dict[int, list[Callable[[], None]]] = {}
        self.refuse_capture = False
        self.creators: list[Any] = []
        self.format = "LINEAR"
        self.executes = True
        self.makes_contexts = True
        self.data_dependent = False
        self.two_outputs = False
        self.dtype = "FLOAT"
        self.version = "10.3.0"
        self.gate: threading.Event | None = None
        self.fails: Callable[[str], bool] = lambda _call: False
        self._stacks = threading.local()
        self._next = 100
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The calls that were recorded, by name."""
        return [entry[0] for entry in self.log]

    def record(self, name: str, *details: Any) -> None:
        self.log.append((name, *details))

    @property
    def stack(self) -> list[str]:
        if not hasattr(self._stacks, "stack"):
            self._stacks.stack = []
        stack: list[str] = self._stacks.stack
        return stack

    def need_context(self, what: str) -> None:
        if self.stack[-1:] != [PRIMARY]:
            self.violations.append(f"{what} without the primary context")

    def handle(self, kind: str) -> int:
        with self._lock:
            self._next += 1
            self.alive[kind] = self.alive.get(kind, 0) + 1
            return self._next

    def destroy(self, kind: str) -> None:
        with self._lock:
            self.alive[kind] -= 1

    def allocate(self, nbytes: int) -> int:
        block = np.zeros(nbytes + ALIGNMENT, np.uint8)
        start = int(block.__array_interface__["data"][0])
        pointer = start + -start % ALIGNMENT
        with self._lock:
            self.memory[pointer] = block
        return pointer

    def array(self, values: NDArray[Any], offset: int = 0, **changes: Any) -> Any:
        """An array on the GPU, as CuPy would give it."""
        pointer = self.allocate(values.nbytes + offset) + offset
        ctypes.memmove(pointer, values.ctypes.data, values.nbytes)
        interface = {
            "shape": values.shape,
            "typestr": values.dtype.str,
            "data": (pointer, False),
            "strides": None,
            "version": 3,
            "stream": None,
            **changes,
        }
        return SimpleNamespace(__cuda_array_interface__=interface)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let imports find the stand-ins."""
        from tests.runtime.fake_cuda import FakeCudaDriver
        from tests.runtime.fake_pycuda import FakePycudaDriver
        from tests.runtime.fake_tensorrt import FakeTensorRt

        patch.setitem(sys.modules, "cuda.bindings.driver", FakeCudaDriver(self))
        patch.setitem(sys.modules, "pycuda.driver", FakePycudaDriver(self))
        patch.setitem(sys.modules, "tensorrt", FakeTensorRt(self))


def read(view: Any) -> NDArray[Any]:
    """The content of an array on the fake GPU."""
    interface = view.__cuda_array_interface__
    dtype = np.dtype(interface["typestr"])
    result = np.empty(interface["shape"], dtype)
    ctypes.memmove(result.ctypes.data, interface["data"][0], result.nbytes)
    return result
