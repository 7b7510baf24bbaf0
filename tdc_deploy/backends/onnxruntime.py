"""ONNX Runtime on the CPU: the backend of `.onnx` artifacts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnxrt import OnnxrtRunner

from tdc_deploy.cpu import available_cpus, device_name
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.large import is_large, outside, shell
from tdc_deploy.profiling.measure import Effort, Feeds, measure
from tdc_deploy.types import Timing

PROVIDER = "CPUExecutionProvider"

# ONNX Runtime's numbering: 3 is "error". Its warnings are about graphs, and go to the user's terminal.
LOG_ERRORS_ONLY = 3
LOG_NOTHING = 4


def make_session(
    model: bytes | Path,
    threads: int = 0,
    spinning: bool = True,
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session of a file or a serialised model; 0 threads: ONNX Runtime's choice.

    `weights` are those that the model says are outside it; they must live as long as the session.

    Raises:
        TdcError: ONNX Runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = LOG_ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    if weights:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
    content = model if isinstance(model, bytes) else str(model)
    name = model if isinstance(model, Path) else "the model"
    with onnxruntime_errors(f"ONNX Runtime cannot load {name}"):
        session = onnxruntime.InferenceSession(content, options, providers=[PROVIDER])
    # Kept to make the session again for another provider: as much again as the weights.
    session._model_bytes = None
    return session  # for mypy, the context might swallow an error


@contextmanager
def onnxruntime_errors(what: str) -> Iterator[None]:
    """Turn ONNX Runtime's exceptions into TdcError; they share no base class but Exception."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise TdcError(
            f"{what}: {str(error).splitlines()[0]}",
            expected="a model that ONNX Runtime runs on the CPU, at the shapes it is given",
        ) from None


class NumpyOnnxrtRunner(OnnxrtRunner):  # type: ignore[misc]  # Polygraphy has no types
    """Polygraphy's runner for NumPy arrays only; `weights` are kept as long as it lives.

    Its own looks for torch tensors, and imports torch for that wherever torch is installed: a second
    and 130 MB.
    """

    def __init__(self, make: Callable[[], Any], weights: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(make)
        self._weights = weights

    def infer_impl(self, feed_dict: Feeds) -> dict[str, NDArray[Any]]:
        """Run the session; Polygraphy's `infer` calls this."""
        start = time.perf_counter()
        with onnxruntime_errors("the model cannot be run on these inputs"):
            values = self.sess.run(None, feed_dict)
        self.inference_time = time.perf_counter() - start
        names = [node.name for node in self.sess.get_outputs()]
        # ONNX Runtime 1.23 hands out an input's own memory, which may be gone before the output is.
        return {
            name: np.array(value) if name in feed_dict else value
            for name, value in zip(names, values, strict=True)
        }


@dataclass(frozen=True)
class OnnxRuntimeBackend:
    """ONNX Runtime's CPU provider with `threads` threads within an operator (0: its own choice).

    `precision` is that of the models that it is given, for what is kept about them.
    """

    threads: int = 0
    precision: str = "fp32"

    def describe(self) -> dict[str, str]:
        """CPU, thread count and library version."""
        return {
            "backend": "onnxruntime",
            "version": onnxruntime.__version__,
            "provider": PROVIDER,
            "device": device_name(),
            "cpus": str(available_cpus()),
            "threads": str(self.threads),
            "precision": self.precision,
        }

    def runner(self, model: onnx.ModelProto | Path) -> BaseRunner:
        """A runner whose idle threads sleep: two sessions that spin ruin each other's times."""
        # Popped when the session is made: the runner would keep the serialised weights beside it.
        weights = {} if isinstance(model, Path) else _outside(model)
        content = [model if isinstance(model, Path) else _message(model)]
        return NumpyOnnxrtRunner(
            lambda: make_session(content.pop(), self.threads, spinning=False, weights=weights),
            weights,
        )

    def measure(self, model: onnx.ModelProto | Path, feeds: Feeds, effort: Effort) -> Timing:
        """The latency of a model at the shapes of `feeds`."""
        with self.runner(model) as runner:
            return measure(runner, feeds, effort)

    def measure_layers(
        self, models: Iterable[tuple[onnx.ModelProto, Feeds]], effort: Effort
    ) -> Iterator[Timing | TdcError]:
        """The latencies of single layers, one after another: a session is made in milliseconds."""
        for model, feeds in models:
            yield self.measure(model, feeds, effort)


def run_for(model: onnx.ModelProto, feeds: Feeds, seconds: float) -> dict[str, NDArray[Any]]:
    """One run of a model, ended if it takes longer (a Loop may never end).

    Raises:
        TdcError: ONNX Runtime refuses the model, or has not run it in that time.
    """
    session = make_session(_message(model), spinning=False, weights=_outside(model))
    options = onnxruntime.RunOptions()
    options.log_severity_level = LOG_NOTHING
    timer = threading.Timer(seconds, lambda: setattr(options, "terminate", True))
    timer.start()
    try:
        with onnxruntime_errors("the model cannot be run"):
            values = session.run(None, dict(feeds), options)
    finally:
        timer.cancel()
    names = [node.name for node in session.get_outputs()]
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def _outside(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    if not is_large(model):
        return {}
    return {entry.name: entry.array() for entry in outside(model)}


def _message(model: onnx.ModelProto) -> bytes:
    if is_large(model):
        model = shell(model, outside(model), "weights")
    return bytes(model.SerializeToString())
