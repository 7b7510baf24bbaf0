"""Open a data set, whatever it is stored as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.readers.columns import npz_rows
from tdc_calibration.readers.files import SampleFiles, npy_folder_rows
from tdc_calibration.readers.images import ImageRows, image_files
from tdc_calibration.readers.iterables import IterableRows, Source
from tdc_calibration.readers.labels import read_labels
from tdc_calibration.readers.preprocessing import PRESETS, Preprocessing
from tdc_calibration.readers.reader import Reader, Row, Rows
from tdc_calibration.readers.spec import InputSpec
from tdc_deploy.errors import TdcError

EXPECTED = "an .npz file, a folder of .npy files or a folder of images"


def open_data(
    data: Path | str | Source,
    spec: InputSpec,
    *,
    preprocessing: Preprocessing | None = None,
    labels: Path | None = None,
    most: int | None = None,
) -> Reader:
    """Samples for a model with the inputs `spec`.

    Args:
        data: an .npz file, a folder of .npy files (one for each input, or one for each sample), a folder
            of images (perhaps in one subfolder for each class), or an iterable or a function that makes
            one (see `iterables.Source`).
        preprocessing: how images become what the model takes; they need it, arrays must not have it.
        labels: a CSV file of class numbers, instead of those that the data come with.
        most: at most that many samples.

    Raises:
        TdcError: the data cannot be read or do not fit the model; no samples.
    """
    if not isinstance(data, (Path, str)):
        if labels is not None:
            raise TdcError(
                f"labels in {labels} for samples from Python", fix="give pairs (sample, label)"
            )
        _check_arrays("samples from Python", preprocessing)
        return Reader(IterableRows(data, spec), spec, most)
    path = Path(data)
    rows, names = _rows(path, spec, preprocessing, classes=labels is None)
    if labels is not None:
        assert rows.count is not None
        rows = _Labelled(rows, read_labels(labels, names, rows.count))
    return Reader(rows, spec, most)


class _Labelled:
    """Samples with other labels than they came with."""

    def __init__(self, rows: Rows, labels: Sequence[int]) -> None:
        self.where, self.count, self.repeatable = rows.where, rows.count, rows.repeatable
        self._rows, self._labels = rows, labels

    def read(self, wanted: NDArray[np.int64] | None) -> Iterator[Row]:
        numbers = range(len(self._labels)) if wanted is None else wanted
        for number, (arrays, _) in zip(numbers, self._rows.read(wanted), strict=True):
            yield arrays, self._labels[number]


def _rows(
    path: Path, spec: InputSpec, preprocessing: Preprocessing | None, classes: bool
) -> tuple[Rows, list[str] | None]:
    """The samples, and their file names if each has one; with `classes`, subfolders number them."""
    if not path.exists():
        raise TdcError(f"no data at {path}", expected=EXPECTED)
    if not path.is_dir():
        _check_arrays(path, preprocessing)
        if path.suffix == ".npy":
            raise TdcError(
                f"{path} is a single .npy array",
                expected=EXPECTED,
                fix="give a folder with it in it, or save it by numpy.savez",
            )
        return npz_rows(path, spec), None
    files, numbers = image_files(path, classes)
    if not files:
        _check_arrays(path, preprocessing)
        rows = npy_folder_rows(path, spec)
        names = [file.name for file in rows.files] if isinstance(rows, SampleFiles) else None
        return rows, names
    if preprocessing is None:
        raise TdcError(
            f"{path} holds images, and nothing says how the model wants them",
            expected=f"a preset ({', '.join(PRESETS)}), or mean and std",
            fix="--preset imagenet, if it was trained like torchvision's networks",
        )
    relative = [file.relative_to(path).as_posix() for file in files]
    return ImageRows(path, files, numbers, spec, preprocessing), relative


def _check_arrays(what: Path | str, preprocessing: Preprocessing | None) -> None:
    if preprocessing is not None:
        raise TdcError(
            f"a preset, size, mean or std for {what}",
            expected="them for images only: arrays are fed as they are",
        )
