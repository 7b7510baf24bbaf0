"""Load a serialised engine, and describe its inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.tensors import TensorInfo

_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
_PROFILE = 0
# Before TensorRT 10, contexts of dynamic shapes could not share an optimisation profile.
_SHARED_PROFILES_SINCE = 10


class Engine:
    """A deserialised engine. Made and released in the owner's thread.

    Raises:
        TdcError: TensorRT refuses the file, or a tensor is one that a session cannot hold.
    """

    def __init__(
        self, tensorrt: Any, path: Path, content: bytes, *, version_compatible: bool
    ) -> None:
        self._logger, messages = _logger(tensorrt)
        self._runtime = tensorrt.Runtime(self._logger)
        if version_compatible:  # such an engine brings code of the TensorRT that built it
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise TdcError(
                f"TensorRT {tensorrt.__version__} cannot load {path}"
                + "".join(f": {message}" for message in messages[-1:]),
                expected="an engine that this version built for this GPU, with its plugin library",
                fix="build it again: tdc-deploy build model.onnx -o model.engine",
            )
        try:
            self._describe(tensorrt)
        except BaseException:
            self.release()
            raise

    def _describe(self, tensorrt: Any) -> None:
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        is_input = {
            name: self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
            for name in names
        }
        for name in names:
            _check_plain(tensorrt, self._engine, name)
        self.inputs = [_input(self._engine, name) for name in names if is_input[name]]
        self.outputs = [_tensor(self._engine, name) for name in names if not is_input[name]]
        dynamic = any(None in info.shape for info in self.inputs)
        major = int(tensorrt.__version__.split(".")[0])
        self.shares_profile = major >= _SHARED_PROFILES_SINCE or not dynamic

    def make_context(self) -> Any:
        """A new execution context on the first optimisation profile.

        Raises:
            TdcError: TensorRT does not make one.
        """
        context = self._engine.create_execution_context()
        if context is None:
            raise TdcError(
                "TensorRT made no execution context; its log says why",
                expected="enough free GPU memory",
                fix="fewer contexts: tdc_deploy.load(..., concurrency=1)",
            )
        return context

    def release(self) -> None:
        """Free it; its execution contexts come first."""
        self._engine = self._runtime = self._logger = None


def _logger(tensorrt: Any) -> tuple[Any, list[str]]:
    """A logger that keeps errors for the message to the user, and the list that it fills."""
    messages: list[str] = []

    class Logger(tensorrt.ILogger):  # type: ignore[misc]  # TensorRT is not there for mypy
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
                messages.append(message)
                del messages[:-10]

    return Logger(), messages


def _check_plain(tensorrt: Any, engine: Any, name: str) -> None:
    if engine.is_shape_inference_io(name) or (
        engine.get_tensor_location(name) != tensorrt.TensorLocation.DEVICE
    ):
        raise TdcError(
            f"{name!r} holds a shape, on the host", expected="inputs and outputs of data"
        )
    if engine.get_tensor_format(name) != tensorrt.TensorFormat.LINEAR:
        raise TdcError(
            f"{name!r} has format {engine.get_tensor_format(name)}",
            expected="LINEAR, as NumPy lays arrays out",
            fix="build the engine without other formats for inputs and outputs",
        )


def _tensor(engine: Any, name: str) -> TensorInfo:
    dtype = engine.get_tensor_dtype(name).name
    if dtype not in _DTYPES:
        raise TdcError(f"{name!r} is {dtype}", expected=f"one of {', '.join(_DTYPES)}")
    shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name))
    return TensorInfo(name, np.dtype(_DTYPES[dtype]), shape)


def _input(engine: Any, name: str) -> TensorInfo:
    info = _tensor(engine, name)
    if None not in info.shape:
        return info
    low, _, high = (tuple(shape) for shape in engine.get_tensor_profile_shape(name, _PROFILE))
    return TensorInfo(name, info.dtype, info.shape, low, high)
