"""A GPU's primary context and memory through pycuda, from any thread.

pycuda ties an object to the thread whose context made it, and aborts the process if a thread ends with a
context still pushed. So each thread retains the primary context (which torch and TensorRT use too) for
itself and pushes it only while it works, and one thread of each session makes and frees its memory;
all others see addresses.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.libraries import pycuda_driver

_THREAD = threading.local()
_Result = TypeVar("_Result")
_Task = tuple[Callable[[], Any], "Future[Any] | None"]


def compute_capability(device: int) -> int:
    """10 * major + minor of a GPU, by CUDA's number.

    Raises:
        TdcError: there is no such GPU.
    """
    driver = pycuda_driver()
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise TdcError(
            f"CUDA does not start: {error}", expected="an NVIDIA GPU with its driver"
        ) from None
    if not 0 <= device < count:
        raise TdcError(f"device {device}", expected=f"one of this machine's {count} GPUs, from 0")
    major, minor = driver.Device(device).compute_capability()
    return int(10 * major + minor)


@contextmanager
def primary_context(device: int) -> Iterator[None]:
    """Make the primary context current in this thread for a while."""
    # Retained once for each thread: pycuda's detach leaves the context current.
    retained = _THREAD.__dict__.setdefault("contexts", {})
    if device not in retained:
        retained[device] = pycuda_driver().Device(device).retain_primary_context()
    context = retained[device]
    context.push()
    try:
        yield
    finally:
        context.pop()


class DeviceOwner:
    """The thread that makes and frees what lives on one GPU.

    It ends after `close`, once the last allocation is freed.
    """

    def __init__(self, device: int) -> None:
        self.device = device
        self._driver = pycuda_driver()
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._allocations: dict[int, Any] = {}
        # A daemon: it waits for what is never freed, and must not keep the process alive.
        self._thread = threading.Thread(target=self._serve, name="tdc-deploy device", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], _Result]) -> _Result:
        """Run a function in the owning thread with the context current; return what it returns."""
        if threading.current_thread() is self._thread:  # a finalizer that was run by its collection
            with primary_context(self.device):
                return function()
        future: Future[_Result] = Future()
        self._tasks.put((function, future))
        return future.result()

    def allocate(self, nbytes: int) -> int:
        """The address of new GPU memory, aligned to at least 256 bytes.

        Raises:
            TdcError: the GPU has not as much left.
        """
        return self.call(lambda: self._allocate(nbytes))

    def free(self, pointer: int) -> None:
        """Free what `allocate` gave, soon; never waits, so that finalizers may call it."""
        self._tasks.put((lambda: self.free_now(pointer), None))

    def free_now(self, pointer: int) -> None:
        """As `free`, in the owning thread with the context current."""
        self._allocations.pop(pointer).free()

    def close(self) -> None:
        """End the thread when nothing is allocated any more; no `call` after this."""
        self._tasks.put(None)

    def _allocate(self, nbytes: int) -> int:
        try:
            allocation = self._driver.mem_alloc(max(nbytes, 1))
        except self._driver.MemoryError:
            raise TdcError(
                f"the GPU has no {nbytes} bytes left",
                expected="more free GPU memory",
                fix="smaller batches, or fewer contexts: tdc_deploy.load(..., concurrency=1)",
            ) from None
        pointer = int(allocation)
        self._allocations[pointer] = allocation
        return pointer

    def _serve(self) -> None:
        closing = False
        while self._allocations or not closing:
            task = self._tasks.get()
            if task is None:
                closing = True
            else:
                self._perform(*task)
            del task  # while it waits, it keeps nothing alive

    def _perform(self, function: Callable[[], Any], future: Future[Any] | None) -> None:
        try:
            with primary_context(self.device):
                value = _released_here(function)
        except BaseException as error:
            if future is not None:
                future.set_exception(error)
        else:
            if future is not None:
                future.set_result(value)


def _released_here(function: Callable[[], _Result]) -> _Result:
    """Call it; an error leaves without its frames' variables, which other threads must not release."""
    try:
        return function()
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise
