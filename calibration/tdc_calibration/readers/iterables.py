"""Samples from Python: a list, a data loader, a function that makes an iterator, or an iterator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.readers.reader import Row
from tdc_calibration.readers.spec import InputSpec
from tdc_deploy.errors import TdcError

WHERE = "the given samples"

Source = Iterable[Any] | Callable[[], Iterable[Any]]
"""Items are an array for a model's only input or a mapping of arrays by input name, each one sample or a
batch [n, ...]; or a pair (that, labels).
"""


class IterableRows:
    """What an iterable gives, sample by sample.

    A function is called for each pass; what is not an iterator of its own (a list, a torch DataLoader)
    is iterated again. A plain iterator can be gone through once.
    """

    count: int | None = None
    where = WHERE

    def __init__(self, source: Source, spec: InputSpec) -> None:
        self._source = source
        self._spec = spec
        self.repeatable = not isinstance(source, Iterator)
        self._used = False

    def read(self, wanted: NDArray[np.int64] | None) -> Iterator[Row]:
        """All samples.

        Raises:
            TdcError: an item is not what a model with these inputs takes, or an iterator is used up.
        """
        assert wanted is None
        if self._used and not self.repeatable:
            raise TdcError(
                f"{WHERE} come from an iterator, which is empty after one pass",
                expected="samples that can be gone through again",
                fix="give a list, or a function that makes the iterator",
            )
        self._used = True
        items = self._source() if callable(self._source) else self._source
        for item in items:
            inputs, labels = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
            yield from self._rows(inputs, labels)

    def _rows(self, inputs: Any, labels: Any) -> Iterator[Row]:
        arrays = self._arrays(inputs)
        name, first = next(iter(arrays.items()))
        single = first.ndim == len(self._spec.shapes[name]) - 1
        if single:
            arrays = {name: array[None] for name, array in arrays.items()}
        for name, array in arrays.items():
            if array.ndim != len(self._spec.shapes[name]):
                raise TdcError(
                    f"{name!r} of {WHERE} has {array.ndim - single} dimensions",
                    expected=f"a batch [n, {', '.join(map(str, self._spec.shapes[name][1:]))}]",
                )
        numbers = None if labels is None else _class_numbers(labels)
        counts = {name: len(array) for name, array in arrays.items()}
        if numbers is not None:
            counts["labels"] = len(numbers)
        if len(set(counts.values())) > 1:
            raise TdcError(
                f"an item of {WHERE} holds different numbers of samples: {counts}",
                expected="one number",
            )
        for row in range(next(iter(counts.values()))):
            label = None if numbers is None else int(numbers[row])
            yield {name: array[row] for name, array in arrays.items()}, label

    def _arrays(self, inputs: Any) -> dict[str, NDArray[Any]]:
        shapes = self._spec.shapes
        if isinstance(inputs, Mapping):
            if set(inputs) != set(shapes):
                raise TdcError(
                    f"an item of {WHERE} holds {', '.join(map(str, inputs)) or 'nothing'}",
                    expected=f"the model's inputs: {', '.join(shapes)}",
                )
            return {name: np.asarray(inputs[name]) for name in shapes}
        if len(shapes) > 1:
            raise TdcError(
                f"an item of {WHERE} is a {type(inputs).__name__}",
                expected=f"a mapping with the model's inputs: {', '.join(shapes)}",
            )
        return {next(iter(shapes)): np.asarray(inputs)}


def _class_numbers(labels: Any) -> NDArray[np.int64]:
    numbers = np.atleast_1d(np.asarray(labels))
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise TdcError(
            f"labels of {WHERE} are {numbers.dtype.name} of shape {numbers.shape}",
            expected="whole class numbers, one for each sample",
        )
    return numbers.astype(np.int64)
