"""Run a model over data, and hand what its tensors hold to those that look at them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.in_turn import hand_out_in_turn
from tdc_calibration.readers import Reader
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.cpu import available_cpus
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import Network, model_of
from tdc_deploy.graph.prefix import prefix_to
from tdc_deploy.graph.shapes import infer_types
from tdc_deploy.progress import Progress, silent
from tdc_deploy.source import Source

# Bytes that observers and the tensors of one run may take in one pass over the data.
PASS_BYTES = 5 * 2**29


class Observer(Protocol):
    """Looks at one tensor, batch by batch."""

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        ...

    def add(self, x: NDArray[Any]) -> None:
        """Look at the values for some samples, [n, ...]."""
        ...


Watched = Mapping[str, Sequence[Observer]]
"""Observers by the tensor that they look at."""


@dataclass(frozen=True)
class Seen:
    """How many samples went through the model; its accuracy on them if they have labels and it puts out
    class scores; and in how many passes.
    """

    samples: int
    accuracy: float | None
    passes: int


def watch(
    source: Source,
    reader: Reader,
    watched: Watched,
    *,
    threads: int = 0,
    pass_bytes: int = PASS_BYTES,
    progress: Progress = silent,
) -> Seen:
    """Show every watched tensor of the model, over all samples, to its observers.

    In one pass if they and the tensors fit in `pass_bytes`, else in groups, one pass each. What the last
    batch is filled up with is not shown, where a tensor's first dimension is the batch.

    Raises:
        TdcError: a tensor is no number, several passes over what can be read once, or the data do not fit.
    """
    types = infer_types(source.network)
    groups = list(_groups(source, watched, pass_bytes))
    if len(groups) > 1 and not reader.repeatable:
        raise TdcError(
            f"{len(groups)} passes over {reader.where}, which can be gone through once",
            expected="samples that can be gone through again",
            fix="give a list, a folder or a function that makes the iterator",
        )
    scores = _Scores(_scores_name(source, types))
    for number, group in enumerate(groups):
        what = "measuring" if len(groups) == 1 else f"measuring, pass {number + 1}/{len(groups)}"
        _Pass(source, reader, group, types, threads).run(
            lambda done, total, what=what: progress(what, done, total),
            scores if number == 0 else None,
        )
    return Seen(len(reader), scores.accuracy(reader), len(groups))


def _groups(source: Source, watched: Watched, pass_bytes: int) -> Iterator[Watched]:
    group: dict[str, Sequence[Observer]] = {}
    held = 0
    for name, observers in watched.items():
        size = 4 * math.prod(source.shapes.get(name, ())) + sum(o.bytes for o in observers)
        if group and held + size > pass_bytes:
            yield group
            group, held = {}, 0
        group[name] = observers
        held += size
    yield group


class _Pass:
    """One pass over the data, for some of the tensors."""

    def __init__(
        self,
        source: Source,
        reader: Reader,
        watched: Watched,
        types: Mapping[str, np.dtype[Any]],
        threads: int,
    ) -> None:
        self._network: Network = source.network
        self._shapes = source.shapes
        self._reader = reader
        self._watched = watched
        self._types = types
        self._threads = threads

    def run(self, progress: Any, scores: _Scores | None) -> None:
        inputs = self._reader.spec.shapes
        wanted = [name for name in self._watched if name not in inputs]
        if scores is not None and scores.name is not None and scores.name not in wanted:
            wanted.append(scores.name)
        prefix = prefix_to(self._network, {name: self._types[name] for name in wanted})
        hand_out_in_turn(prefix, [name for name in wanted if len(self._shapes.get(name, ())) == 4])
        fed = {tensor.name for tensor in prefix.graph.inputs}
        workers = self._threads or available_cpus()
        done, total = 0, self._reader.known_count
        with (
            OnnxRuntimeBackend(self._threads).runner(model_of(prefix)) as runner,
            ThreadPoolExecutor(workers) as pool,
        ):
            # Handing work to a single thread would only cost time.
            each = map if workers == 1 else pool.map

            def infer(feeds: Mapping[str, Any]) -> dict[str, Any]:
                used = {name: array for name, array in feeds.items() if name in fed}
                return dict(runner.infer(used, check_inputs=False)) if wanted else {}

            for feeds, count in self._reader.batches():
                progress(done, total or done + count)
                self._show(each, infer(feeds), feeds, count, scores)
                done += count
        progress(done, done)

    def _show(
        self,
        each: Callable[..., Iterable[None]],
        values: Mapping[str, Any],
        feeds: Mapping[str, Any],
        count: int,
        scores: _Scores | None,
    ) -> None:
        if scores is not None:
            scores.add(values, count, self._reader.spec.batch)
        looking: list[Observer] = []
        arrays: list[NDArray[Any]] = []
        for name, observers in self._watched.items():
            x = np.asarray(feeds[name] if name in feeds else values[name])
            # Inside, the first dimension may hold more than the samples (crops, frames).
            if x.ndim and len(x) == self._reader.spec.batch:
                x = x[:count]
            looking += observers
            arrays += [x] * len(observers)
        for _ in each(_quietly, looking, arrays):
            pass


def _quietly(observer: Observer, x: NDArray[Any]) -> None:
    """What overflows is found in the result."""
    with np.errstate(all="ignore"):
        observer.add(x)


class _Scores:
    """The classes with the highest score, sample by sample."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self._classes = 0
        self._best: list[NDArray[np.int64]] = []

    def add(self, values: Mapping[str, Any], count: int, batch: int) -> None:
        """Note a batch's classes."""
        if self.name is None:
            return
        value = np.asarray(values[self.name])
        if value.ndim != 2 or value.shape[1] < 2 or len(value) != batch:
            self.name = None
            return
        self._classes = value.shape[1]
        self._best.append(value[:count].argmax(1))

    def accuracy(self, reader: Reader) -> float | None:
        """The share that is right; None without labels or scores.

        Raises:
            TdcError: a label is no class of the model.
        """
        labels = reader.labels
        if labels is None or self.name is None:
            return None
        if labels.min() < 0 or labels.max() >= self._classes:
            raise TdcError(
                f"labels from {labels.min()} to {labels.max()} for {reader.where}",
                expected=f"class numbers from 0 to {self._classes - 1}, as the model has classes",
            )
        return float((np.concatenate(self._best) == labels).mean())


def _scores_name(source: Source, types: Mapping[str, np.dtype[Any]]) -> str | None:
    """The first floating-point output of two dimensions, if any."""
    for tensor in source.network.graph.outputs:
        shape = source.shapes.get(tensor.name, (0, 0))
        if types.get(tensor.name, np.dtype(np.float32)).kind == "f" and len(shape) == 2:
            return str(tensor.name)
    return None


def check_tensors(source: Source, names: Collection[str]) -> None:
    """Raise TdcError unless all of these are floating-point tensors of the model's main graph."""
    types = infer_types(source.network)
    known = source.network.graph.tensors()
    for name in names:
        if name not in known or types.get(name, np.dtype(int)).kind != "f":
            raise TdcError(f"a range of {name!r}", expected="a floating-point tensor of the model")
