"""Inference on a built artifact, on any ONNX model, or on a TensorRT engine."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.binding import InputBinder
from tdc_deploy.runtime.tensors import TensorInfo

ENGINE_SUFFIXES = (".engine", ".plan")
CONCURRENCY = 4
_Self = TypeVar("_Self", bound="Session")


class Session(ABC):
    """A loaded model. Call it with one array per input: in order, by name, or as one dict.

    It returns the output, or a dict of outputs by name where the model has several. Calls from
    several threads are safe. Use as a context manager, or `close` it.
    """

    def __init__(
        self, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], concurrency: int
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._binder = InputBinder(inputs)
        self._single = len(self.outputs) == 1
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False

    def __call__(self, *arrays: Any, out: Any = None, stream: Any = None, **named: Any) -> Any:
        """Run the model.

        Args:
            arrays: inputs in order, or one dict of inputs by name.
            out: buffers for the outputs, which are then what is returned: an array, a list with one
                (or None) for each output, or a dict by name. Without it outputs are fresh.
            stream: the CUDA stream to run on, its address or an object that has it (torch, CuPy,
                pycuda); engines only. Without it the session's own stream is used.
            named: inputs by name. An input called `out` or `stream` is given in order or in a dict.

        Raises:
            TdcError: an input is missing, unknown, or of another dtype or shape; a buffer does not
                fit; the model refuses these shapes; or the session is closed.
        """
        if self._closed:
            raise closed()
        return self._run(self._binder.bind(arrays, named), out, stream)

    def submit(
        self, *arrays: Any, out: Any = None, stream: Any = None, **named: Any
    ) -> Future[Any]:
        """Run the model in another thread; the future holds the result, or the TdcError.

        The arrays must stay as they are until the future is done.

        Raises:
            TdcError: the session is closed.
        """
        with self._lock:
            if self._closed:
                raise closed()
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._concurrency, "tdc-deploy")
            return self._executor.submit(self, *arrays, out=out, stream=stream, **named)

    async def run_async(
        self, *arrays: Any, out: Any = None, stream: Any = None, **named: Any
    ) -> Any:
        """As a call, but the event loop goes on meanwhile."""
        return await asyncio.wrap_future(self.submit(*arrays, out=out, stream=stream, **named))

    def close(self) -> None:
        """Wait for the calls that run, cancel those submitted that do not, and free the model.

        Later calls raise TdcError. Closing again does nothing.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            executor = self._executor
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)
        self._release()

    @abstractmethod
    def _run(self, feeds: dict[str, Any], out: Any, stream: Any) -> Any:
        """Run on the caller's arrays by input name."""

    @abstractmethod
    def _release(self) -> None:
        """Free what the session holds; called once, when nothing submitted runs any more."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def load(
    path: str | PathLike[str],
    threads: int = 0,
    *,
    concurrency: int = CONCURRENCY,
    device: int = 0,
    plugin: str | PathLike[str] | None = None,
    cuda_graphs: bool = True,
) -> Session:
    """Load an artifact for inference.

    Args:
        path: an `.onnx` file (ONNX Runtime on the CPU), or an `.engine` or `.plan` (TensorRT).
        threads: ONNX Runtime's threads within an operator; 0 leaves it to ONNX Runtime.
        concurrency: how many calls run at a time: threads that `submit` uses, and an engine's
            execution contexts, each of which takes GPU memory when it is first needed.
        device: the GPU that an engine runs on, by CUDA's number.
        plugin: the plugin library of an engine; by default the one that `tdc-deploy plugin path`
            prints, if the engine's sidecar says that it needs one.
        cuda_graphs: whether an engine's launches are captured and replayed where a call has the
            shapes and buffers of the one before.

    Raises:
        TdcError: no such file, its runtime is not installed or refuses it, or an engine was built
            by another TensorRT or for another GPU.
    """
    where = Path(path)
    if threads < 0:
        raise TdcError(f"threads is {threads}", expected="0 (ONNX Runtime's choice) or more")
    if concurrency < 1:
        raise TdcError(f"concurrency is {concurrency}", expected="1 or more")
    if not where.is_file():
        raise TdcError(f"no artifact at {where}", fix="check the path")
    if where.suffix in ENGINE_SUFFIXES:
        from tdc_deploy.runtime.tensorrt_session import TensorRtSession

        library = None if plugin is None else Path(plugin)
        return TensorRtSession(where, concurrency, device, library, cuda_graphs)
    from tdc_deploy.runtime.onnxruntime_session import OnnxRuntimeSession

    return OnnxRuntimeSession(where, threads, concurrency)


def closed() -> TdcError:
    """The error of every call after `close`."""
    return TdcError("this session is closed", fix="load the artifact again")
