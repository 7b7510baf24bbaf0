"""Arrays with one row per sample that are read row by row: .npz archives, and .npy files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.readers.reader import Row
from tdc_calibration.readers.spec import InputSpec
from tdc_deploy.errors import TdcError
from tdc_deploy.samples import LABELS, by_input, check_array, check_counts, class_numbers

# The fixed part of a member's header in a zip file; the lengths of its name and extra field are in it.
LOCAL_HEADER = 30
LENGTHS = slice(26, 30)


class Column(Protocol):
    """An array [N, ...] whose rows can be gone through in order."""

    @property
    def header(self) -> NDArray[Any]:
        """An array of its type and shape, whose values are not in memory."""
        ...

    def read(self, wanted: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """The rows of these ascending numbers."""
        ...


class MappedColumn:
    """A memory-mapped array."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.header = array

    def read(self, wanted: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """The rows of these ascending numbers."""
        for number in wanted:
            yield self.header[number]


class StreamedColumn:
    """A compressed member of an .npz archive: unpacked from its start in every pass."""

    def __init__(
        self, path: Path, member: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._path, self._member = path, member
        # Zeros that all are one number: nothing but type and shape.
        self.header: NDArray[Any] = np.broadcast_to(np.zeros((), dtype), shape)

    def read(self, wanted: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """The rows of these ascending numbers."""
        shape, dtype = self.header.shape[1:], self.header.dtype
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        with (
            reading(self._path),
            zipfile.ZipFile(self._path) as archive,
            archive.open(self._member) as file,
        ):
            _npy_header(file)
            at = 0
            for number in wanted:
                for _ in range(int(number) - at):
                    _exactly(file, size)
                yield np.frombuffer(_exactly(file, size), dtype).reshape(shape)
                at = int(number) + 1
            if at == len(self.header):
                file.read(1)  # at the end, the archive's checksum is compared


class ColumnRows:
    """The rows of one column for each input, with labels [N] if there are any.

    Raises:
        TdcError: a column does not fit its input, or they differ in length.
    """

    repeatable = True

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, Column],
        labels: NDArray[np.int64] | None,
        spec: InputSpec,
    ) -> None:
        self.where = str(path)
        self._columns = by_input(path, columns, spec.shapes)
        self._labels = labels
        for name, column in self._columns.items():
            check_array(path, name, column.header, spec.shapes[name], spec.types[name])
        counts = {name: len(column.header) for name, column in self._columns.items()}
        check_counts(path, counts if labels is None else counts | {LABELS: len(labels)})
        self.count: int | None = next(iter(counts.values()))

    def read(self, wanted: NDArray[np.int64] | None) -> Iterator[Row]:
        """The samples of these ascending numbers, or all."""
        assert self.count is not None
        numbers = np.arange(self.count) if wanted is None else wanted
        columns = [column.read(numbers) for column in self._columns.values()]
        for number, *values in zip(numbers, *columns, strict=True):
            label = None if self._labels is None else int(self._labels[number])
            yield dict(zip(self._columns, values, strict=True)), label


def npz_rows(path: Path, spec: InputSpec) -> ColumnRows:
    """The rows of an .npz archive with an array for each input, and class numbers in `labels`.

    Stored members are memory-mapped, compressed ones are unpacked row by row.

    Raises:
        TdcError: it cannot be read, or does not fit the model.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        columns: dict[str, Column] = {
            info.filename.removesuffix(".npy"): _column(path, archive, info) for info in members
        }
        labels = columns.pop(LABELS, None)
        numbers = None
        if labels is not None:
            with archive.open(f"{LABELS}.npy") as file:
                numbers = np.lib.format.read_array(file, allow_pickle=False)
    return ColumnRows(path, columns, class_numbers(numbers, path), spec)


def mapped(path: Path) -> NDArray[Any]:
    """A memory-mapped .npy file.

    Raises:
        TdcError: it is none, or is cut short.
    """
    with reading(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("it is an .npz archive, though its name ends in .npy")
        return array


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what NumPy and zipfile raise on bad files into TdcError."""
    try:
        yield
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise TdcError(
            f"{path} cannot be read: {error}",
            expected="an .npz or .npy file, saved by numpy without pickle",
        ) from None


def _column(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Column:
    with archive.open(info) as file:
        shape, fortran, dtype = _npy_header(file)
        start = file.tell()
        if info.compress_type != zipfile.ZIP_STORED:
            if not fortran or len(shape) < 2:
                return StreamedColumn(path, info.filename, shape, dtype)
            # Column-major: no row is in one piece.
            with archive.open(info) as again:
                return MappedColumn(np.lib.format.read_array(again, allow_pickle=False))
    with path.open("rb") as raw:
        raw.seek(info.header_offset)
        lengths = raw.read(LOCAL_HEADER)[LENGTHS]
    name, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
    offset = info.header_offset + LOCAL_HEADER + name + extra + start
    if int(np.prod(shape, dtype=np.int64)) == 0:  # nothing to map
        return MappedColumn(np.empty(shape, dtype))
    order: Any = "F" if fortran else "C"
    return MappedColumn(np.memmap(path, dtype, "r", offset, shape, order))


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"an array of .npy version {version}")
    shape, fortran, dtype = read[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, fortran, dtype


def _exactly(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise EOFError("it is cut short")
    return content
