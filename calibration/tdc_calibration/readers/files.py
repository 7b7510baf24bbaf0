"""Folders of .npy files: one for each input, or one for each sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.readers.columns import ColumnRows, MappedColumn, mapped
from tdc_calibration.readers.reader import Row, Rows
from tdc_calibration.readers.spec import InputSpec
from tdc_deploy.errors import TdcError
from tdc_deploy.samples import LABELS, class_numbers


class SampleFiles:
    """One .npy file for each sample of a single-input model, in the order of their names.

    Raises:
        TdcError: the first file does not fit the model, or labels are not as many as files.
    """

    repeatable = True

    def __init__(
        self, path: Path, files: Sequence[Path], labels: NDArray[np.int64] | None, spec: InputSpec
    ) -> None:
        if len(spec.shapes) > 1:
            raise TdcError(
                f"{path} holds {', '.join(file.stem for file in files[:5])}, …",
                expected=f"files named as the inputs: {', '.join(sorted(spec.shapes))}",
            )
        if labels is not None and len(labels) != len(files):
            raise TdcError(
                f"{path} holds {len(files)} samples and {len(labels)} labels", expected="one each"
            )
        self.where = str(path)
        self.count: int | None = len(files)
        self.files, self._labels = files, labels
        ((self._name, shape),) = spec.shapes.items()
        self._shape = shape[1:]

    def read(self, wanted: NDArray[np.int64] | None) -> Iterator[Row]:
        """The samples of these ascending numbers, or all."""
        for number in range(len(self.files)) if wanted is None else wanted:
            label = None if self._labels is None else int(self._labels[number])
            yield {self._name: self._row(self.files[number])}, label

    def _row(self, file: Path) -> NDArray[Any]:
        array = mapped(file)
        row = array[0] if array.ndim == len(self._shape) + 1 and len(array) == 1 else array
        if row.shape != self._shape:
            raise TdcError(f"{file} has shape {array.shape}", expected=f"{self._shape}, one sample")
        return row


def npy_folder_rows(path: Path, spec: InputSpec) -> Rows:
    """The samples of a folder of .npy files, with class numbers in `labels.npy` if it is there.

    One file for each input [N, ...], or, for a model with a single input, one for each sample.

    Raises:
        TdcError: a file cannot be read or does not fit, or files are missing.
    """
    files = {file.stem: file for file in sorted(path.glob("*.npy"))}
    labels_file = files.pop(LABELS, None)
    labels = class_numbers(None if labels_file is None else mapped(labels_file), path)
    if not files:
        raise TdcError(f"{path} holds no samples", expected="images, or arrays as .npy files")
    if set(spec.shapes) <= set(files):
        columns = {name: MappedColumn(mapped(files[name])) for name in spec.shapes}
        return ColumnRows(path, columns, labels, spec)
    return SampleFiles(path, list(files.values()), labels, spec)
