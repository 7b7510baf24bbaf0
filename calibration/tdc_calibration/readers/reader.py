"""Samples streamed in batches of a model's size: checked, counted and hashed on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.readers.spec import InputSpec
from tdc_deploy.errors import TdcError
from tdc_deploy.samples import Samples, at_least_eight, check_array, check_finite

Row = tuple[Mapping[str, NDArray[Any]], int | None]
"""One sample's inputs by name, without a batch dimension, and its class number if that is known."""

# Of a large set, what verification and the correction of statistics take into memory.
SOME = 256

# Of a sample's SHA-256: two different samples have the same 16 bytes once in 2^64 samples.
DIGEST_BYTES = 16


class Rows(Protocol):
    """Samples in a fixed order, of which only few are in memory at a time.

    `where` names them in messages. `count` is None where only going through them tells it, and then
    `read` is asked for all, or for the first. `repeatable` is False if they can be read only once.
    """

    where: str
    count: int | None
    repeatable: bool

    def read(self, wanted: NDArray[np.int64] | None) -> Iterator[Row]:
        """The samples of these ascending numbers, or all."""
        ...


class Reader:
    """Samples for a model with the inputs `spec`, one batch in memory at a time.

    A reader can be gone through as often as wanted (if it is `repeatable`); each pass must give the
    same samples. `most` is an upper limit of the samples it gives: evenly spread over the set, which
    may be sorted by class, or the first ones of an iterable.

    Raises:
        TdcError: `most` is below 1, or there are no samples.
    """

    def __init__(self, rows: Rows, spec: InputSpec, most: int | None = None) -> None:
        if most is not None and most < 1:
            raise TdcError(f"{most} samples", expected="at least 1")
        if rows.count == 0:
            raise _empty(rows.where)
        self.spec = spec
        self._rows = rows
        self._most = most
        self._wanted: NDArray[np.int64] | None = None
        if most is not None and rows.count is not None and most < rows.count:
            self._wanted = _spread(rows.count, most)
        self._seen: tuple[NDArray[np.int64] | None, tuple[bytes, ...]] | None = None

    @property
    def where(self) -> str:
        """What the samples are read from, for messages."""
        return self._rows.where

    @property
    def repeatable(self) -> bool:
        """False if only one pass can be made: a plain iterator."""
        return self._rows.repeatable

    @property
    def known_count(self) -> int | None:
        """The number of samples if that is known without going through them."""
        if self._seen is not None:
            return len(self._seen[1])
        return self._rows.count if self._wanted is None else len(self._wanted)

    def __len__(self) -> int:
        """The number of samples; an iterable is gone through for it once."""
        known = self.known_count
        return len(self._whole_pass()[1]) if known is None else known

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class numbers [N], or None; known once the samples were gone through, which is done if needed."""
        return self._whole_pass()[0]

    @property
    def digests(self) -> tuple[bytes, ...]:
        """Of each sample's content, the same however it is stored; as `labels`, after a pass."""
        return self._whole_pass()[1]

    @property
    def sha256(self) -> str:
        """Digest of all samples in their order; as `labels`, after a pass."""
        return digest_of(self.digests)

    def limited(self, most: int | None) -> Reader:
        """At most that many of the samples; all without a number."""
        return Reader(self._rows, self.spec, most)

    def halves(self) -> tuple[Reader, Reader]:
        """Every other sample each: the even ones, and the odd ones."""
        limits = (
            (None, None) if self._most is None else (-(-self._most // 2), max(1, self._most // 2))
        )
        even, odd = (
            Reader(EveryOther(self._rows, is_odd), self.spec, most)
            for is_odd, most in zip((False, True), limits, strict=True)
        )
        return even, odd

    def batches(self) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
        """Feeds of the network's batch size, each with how many of its rows are samples.

        The last one is filled up by repeating its last sample.

        Raises:
            TdcError: a sample does not fit the model, is not finite or cannot be read; some have labels
                and some not; no samples; other samples than in the pass before, or a second pass over
                what can be read once.
        """
        digests: list[bytes] = []
        labels: list[int | None] = []
        size = self.spec.batch
        feeds: dict[str, NDArray[Any]] = {}
        filled = 0
        for arrays, label in self._limited_rows():
            if not filled:
                feeds = {
                    name: np.empty(shape, self.spec.types[name])
                    for name, shape in self.spec.shapes.items()
                }
            self._place(arrays, feeds, filled, len(labels))
            digests.append(_digest(self.spec, feeds, filled))
            labels.append(label)
            filled += 1
            if filled == size:
                yield feeds, size
                filled = 0
        if filled:
            for array in feeds.values():
                array[filled:] = array[filled - 1]
            yield feeds, filled
        self._passed(labels, tuple(digests))

    def samples(self, most: int = SOME) -> Samples:
        """At most that many of the samples in memory, as verification takes them.

        Raises:
            TdcError: as `batches`, or there are fewer than verification needs.
        """
        few = self._fewer(most)
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in self.spec.shapes}
        for feeds, count in few.batches():
            for name, array in feeds.items():
                parts[name].append(array[:count])
        arrays = {name: np.concatenate(batches) for name, batches in parts.items()}
        return at_least_eight(Samples(arrays, self.spec.batch, few.labels), self.where)

    def _fewer(self, most: int) -> Reader:
        """At most that many of those that this reader gives; `limited` takes them of the whole set."""
        if self._most is not None and self._most <= most:
            return self
        few = self.limited(most)
        if self._wanted is not None:
            few._wanted = self._wanted[_spread(len(self._wanted), most)]
        return few

    def _limited_rows(self) -> Iterator[Row]:
        rows = self._rows.read(self._wanted)
        if self._wanted is not None or self._most is None:
            yield from rows
            return
        for number, row in enumerate(rows, 1):
            yield row
            if number == self._most:
                return

    def _place(
        self,
        arrays: Mapping[str, NDArray[Any]],
        feeds: dict[str, NDArray[Any]],
        at: int,
        number: int,
    ) -> None:
        where = f"sample {number} of {self.where}"
        for name, shape in self.spec.shapes.items():
            array = arrays[name]
            if array.shape != shape[1:] or array.dtype != self.spec.types[name]:
                check_array(where, name, array[None], shape, self.spec.types[name])
            check_finite(where, name, array)
            feeds[name][at] = array

    def _whole_pass(self) -> tuple[NDArray[np.int64] | None, tuple[bytes, ...]]:
        if self._seen is None:
            for _ in self.batches():
                pass
        assert self._seen is not None
        return self._seen

    def _passed(self, labels: list[int | None], digests: tuple[bytes, ...]) -> None:
        if not labels:
            raise _empty(self.where)
        if self._seen is not None and self._seen[1] != digests:
            raise TdcError(
                f"{self.where} gave other samples in another pass",
                expected="the same samples in the same order each time",
                fix="switch off shuffling and random augmentation, and leave the files alone meanwhile",
            )
        known = [label for label in labels if label is not None]
        if known and len(known) < len(labels):
            raise TdcError(
                f"{self.where} has labels for {len(known)} of its {len(labels)} samples",
                expected="one for every sample, or none",
            )
        self._seen = (np.array(known, np.int64) if known else None, digests)


class EveryOther:
    """The even samples of some, or the odd ones."""

    def __init__(self, rows: Rows, odd: bool) -> None:
        self._rows, self._odd = rows, int(odd)
        self.where, self.repeatable = rows.where, rows.repeatable
        self.count = None if rows.count is None else (rows.count + 1 - self._odd) // 2

    def read(self, wanted: NDArray[np.int64] | None) -> Iterator[Row]:
        """The samples of these ascending numbers, or all."""
        if wanted is None and self.count is not None:
            wanted = np.arange(self.count)
        if wanted is not None:
            yield from self._rows.read(2 * wanted + self._odd)
            return
        for number, row in enumerate(self._rows.read(None)):
            if number % 2 == self._odd:
                yield row


def sample_digests(samples: Samples, spec: InputSpec) -> tuple[bytes, ...]:
    """What `Reader.digests` are of the same samples."""
    return tuple(_digest(spec, samples.arrays, row) for row in range(len(samples)))


def digest_of(digests: tuple[bytes, ...]) -> str:
    """Of samples in their order, from each one's: SHA-256 in hexadecimal."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _spread(count: int, most: int) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = np.linspace(0, count - 1, most).round().astype(np.int64)
    return numbers


def _digest(spec: InputSpec, feeds: Mapping[str, NDArray[Any]], row: int) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(spec.shapes):
        described = f"{name}\0{spec.types[name].str}\0{spec.shapes[name][1:]}\0"
        digest.update(described.encode())
        digest.update(np.ascontiguousarray(feeds[name][row]).data)
    return digest.digest()[:DIGEST_BYTES]


def _empty(where: str) -> TdcError:
    return TdcError(f"{where} holds no samples", expected="at least one")
