"""The inputs that a user gives (or random ones), as batches of the network's size."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.graph.shapes import Shapes

LABELS = "labels"
MIN_SAMPLES = 8
RANDOM_SAMPLES = 16

# From this many on, repair and verification each get their own half.
SPLIT_FROM = 2 * MIN_SAMPLES

Arrays = Mapping[str, NDArray[Any]]
OpenShape = Sequence[int | str | None]
"""A shape whose open sizes are None or a name."""

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Samples:
    """Input arrays by name, each [N, ...] with one row per sample; labels [N] where there are any.

    `real` is False for random ones, which verify nothing. `repairs` are other samples of the same inputs,
    which repair networks so that all of these can verify them.
    """

    arrays: Arrays
    batch: int
    labels: NDArray[np.int64] | None = None
    real: bool = True
    repairs: Samples | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def sha256(self) -> str:
        """Digest of the inputs' content."""
        digest = hashlib.sha256(str(self.batch).encode())
        for name in sorted(self.arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.arrays[name]).data)
        return digest.hexdigest()

    def take(self, rows: slice | NDArray[np.int64]) -> Samples:
        """Some of the samples."""
        arrays = {name: array[rows] for name, array in self.arrays.items()}
        labels = None if self.labels is None else self.labels[rows]
        return Samples(arrays, self.batch, labels, self.real)

    def split(self) -> tuple[Samples, Samples]:
        """(for repair, for verification): every other sample each, or all for both where few; `repairs` and
        all where there are such.

        Random samples repair nothing, and all of them verify.
        """
        if self.repairs is not None:
            return self.repairs, self
        if len(self) < SPLIT_FROM or not self.real:
            return self, self
        return self.take(slice(0, None, 2)), self.take(slice(1, None, 2))

    def spread(self, count: int) -> Samples:
        """At most `count` of the samples, evenly spread over them (they may be sorted by class)."""
        if len(self) <= count:
            return self
        return self.take(np.linspace(0, len(self) - 1, count).round().astype(np.int64))

    def batches(self) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
        """Feeds of the network's batch size, each with how many of its rows are samples.

        The last one is filled up by repeating its last sample.
        """
        for start in range(0, len(self), self.batch):
            rows = np.minimum(np.arange(start, start + self.batch), len(self) - 1)
            feeds = {name: np.ascontiguousarray(a[rows]) for name, a in self.arrays.items()}
            yield feeds, min(self.batch, len(self) - start)

    def first_batch(self) -> dict[str, NDArray[Any]]:
        """One batch, for timing."""
        return next(self.batches())[0]


def read_samples(path: Path, types: Mapping[str, np.dtype[Any]], shapes: Shapes) -> Samples:
    """Read inputs of these types and shapes from an .npz file or a folder of .npy files.

    A folder may instead hold one file per sample for a single-input model, taken in the order of their
    names.

    Raises:
        TdcError: something is missing, unreadable, of another shape or type, NaN, or too few.
    """
    samples = read_rows(path, shapes, batch_size(shapes))
    for name, array in samples.arrays.items():
        check_array(path, name, array, shapes[name], types[name])
    return at_least_eight(samples, path)


def read_rows(path: Path, shapes: Mapping[str, OpenShape], batch: int) -> Samples:
    """Read arrays named as the inputs in `shapes` (one alone may have any name), one sample per row, and
    class numbers in `labels`; all numbers are finite, their types and shapes are not looked at.

    Raises:
        TdcError: something is missing, unreadable or NaN, or the numbers of samples differ.
    """
    arrays = _read(path, shapes)
    labels = class_numbers(arrays.pop(LABELS, None), path)
    arrays = by_input(path, arrays, shapes)
    if scalars := [name for name, array in arrays.items() if array.ndim == 0]:
        raise TdcError(
            f"{scalars[0]!r} in {path} is a single number", expected="one row per sample"
        )
    for name, array in arrays.items():
        check_finite(path, name, array)
    counts = {name: len(array) for name, array in arrays.items()}
    if labels is not None:
        counts[LABELS] = len(labels)
    check_counts(path, counts)
    return Samples(arrays, batch, labels)


def by_input(
    path: Path, named: Mapping[str, Value], shapes: Mapping[str, OpenShape]
) -> dict[str, Value]:
    """What `path` holds, by the names of the inputs; one alone may have any name.

    Raises:
        TdcError: the names are others.
    """
    if len(shapes) == 1 and len(named) == 1:
        return {next(iter(shapes)): next(iter(named.values()))}
    if set(named) != set(shapes):
        raise TdcError(
            f"{path} holds arrays {_names(named)}",
            expected=f"one for each input of the model: {_names(shapes)} (and {LABELS}, if known)",
        )
    return dict(named)


def check_counts(path: Path, counts: Mapping[str, int]) -> None:
    """Raise TdcError unless there are as many samples of everything."""
    if len(set(counts.values())) != 1:
        raise TdcError(
            f"{path} holds different numbers of samples: {dict(counts)}", expected="one number"
        )


def check_finite(where: Path | str, name: str, array: NDArray[Any]) -> None:
    """Raise TdcError if an array holds NaN or infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise TdcError(f"{name!r} in {where} holds NaN or infinity", expected="finite numbers")


def input_types(graph: gs.Graph) -> dict[str, np.dtype[Any]]:
    """The NumPy type of each input."""
    return {tensor.name: np.dtype(tensor.dtype) for tensor in graph.inputs}


def random_samples(graph: gs.Graph, shapes: Shapes, seed: int = 0) -> Samples:
    """Random inputs: image-like where they are 4-D (white noise averages out in a CNN), else Gaussian.

    Raises:
        TdcError: an input is not floating point, so that no random value can be assumed to make sense.
    """
    rng = np.random.default_rng(seed)
    batch = batch_size(shapes)
    count = -(-RANDOM_SAMPLES // batch) * batch
    arrays: dict[str, NDArray[Any]] = {}
    for tensor in graph.inputs:
        dtype = np.dtype(tensor.dtype)
        if dtype.kind != "f":
            raise TdcError(
                f"input {tensor.name!r} is {dtype.name}, and random values would not make sense",
                fix="give --inputs",
            )
        arrays[tensor.name] = _random(rng, (count, *shapes[tensor.name][1:])).astype(dtype)
    return Samples(arrays, batch, real=False)


def _random(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    noise = rng.standard_normal(shape)
    if len(shape) != 4:
        return noise
    height, width = shape[2:]
    for cells in (2, 4, 8, 16):
        coarse = rng.standard_normal((*shape[:2], min(cells, height), min(cells, width)))
        rows = np.arange(height) * coarse.shape[2] // height
        columns = np.arange(width) * coarse.shape[3] // width
        noise += coarse[:, :, rows][:, :, :, columns]
    contrast = rng.uniform(0.4, 1.6, (shape[0], 1, 1, 1))
    return noise * contrast + rng.normal(0, 0.5, (*shape[:2], 1, 1))


def _read(path: Path, shapes: Mapping[str, OpenShape]) -> dict[str, NDArray[Any]]:
    if not path.exists():
        raise TdcError(f"no inputs at {path}", expected="an .npz file or a folder of .npy files")
    try:
        if path.is_dir():
            return _read_folder(path, shapes)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise TdcError(
                f"{path} is a single .npy array", expected="an .npz file or a folder of .npy files"
            )
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TdcError(
            f"{path} cannot be read: {error}",
            expected="an .npz file or a folder of .npy files, saved by numpy without pickle",
        ) from None


def _read_folder(path: Path, shapes: Mapping[str, OpenShape]) -> dict[str, NDArray[Any]]:
    files = {file.stem: file for file in sorted(path.glob("*.npy"))}
    if not files:
        raise TdcError(f"{path} holds no .npy file", expected=f"{_names(shapes)} as .npy files")
    if set(shapes) <= set(files):
        return {name: np.load(file, allow_pickle=False) for name, file in files.items()}
    labels = files.pop(LABELS, None)
    if not files:
        raise TdcError(
            f"{path} holds nothing but labels", expected=f"{_names(shapes)} as .npy files"
        )
    if len(shapes) > 1:
        raise TdcError(
            f"{path} holds {_names(files)}", expected=f"files named as the inputs: {_names(shapes)}"
        )
    ((name, shape),) = shapes.items()
    rows = [np.load(file, allow_pickle=False) for file in files.values()]
    rows = [row[0] if row.ndim == len(shape) and len(row) == 1 else row for row in rows]
    known = tuple(
        size if isinstance(size, int) else first
        for size, first in zip_longest(shape[1:], rows[0].shape)
    )
    odd = [f.name for f, row in zip(files.values(), rows, strict=True) if row.shape != known]
    if odd:
        raise TdcError(f"{path / odd[0]} has another shape", expected=f"{known}, one sample")
    arrays = {name: np.stack(rows)}
    if labels is not None:
        arrays[LABELS] = np.load(labels, allow_pickle=False)
    return arrays


def class_numbers(array: NDArray[Any] | None, path: Path) -> NDArray[np.int64] | None:
    """Labels as int64 [N], or None without any.

    Raises:
        TdcError: they are no whole numbers, or not one per sample.
    """
    if array is None:
        return None
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise TdcError(
            f"the labels in {path} are {array.dtype.name} of shape {array.shape}",
            expected="whole class numbers of shape [N]",
        )
    return array.astype(np.int64)


def check_array(
    where: Path | str,
    name: str,
    array: NDArray[Any],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> None:
    """Raise TdcError unless an array [N, ...] has the type and, but for N, the shape of an input."""
    if array.dtype != dtype:
        raise TdcError(
            f"{name!r} in {where} is {array.dtype.name}",
            expected=f"{dtype.name}, as the model takes",
            fix=f"save it with .astype(numpy.{dtype.name}) after the model's own preprocessing",
        )
    if array.shape[1:] != shape[1:]:
        raise TdcError(
            f"{name!r} in {where} has shape {array.shape}",
            expected=f"[N, {', '.join(map(str, shape[1:]))}]",
        )


def at_least_eight(samples: Samples, path: Path | str) -> Samples:
    """The samples, if they are enough to measure an error on.

    Raises:
        TdcError: there are fewer than MIN_SAMPLES.
    """
    if len(samples) < MIN_SAMPLES:
        raise TdcError(
            f"{path} holds {len(samples)} samples",
            expected=f"at least {MIN_SAMPLES}: the error is measured against the variation between them",
        )
    return samples


def batch_size(shapes: Shapes) -> int:
    """The first dimension of every input.

    Raises:
        TdcError: the inputs do not share one.
    """
    sizes = {shape[0] if shape else None for shape in shapes.values()}
    if len(sizes) != 1 or None in sizes:
        raise TdcError(
            f"the inputs have different first dimensions: {shapes}",
            expected="the batch size first in every input",
        )
    return next(iter(shapes.values()))[0]


def _names(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
