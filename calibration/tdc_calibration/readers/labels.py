"""Class numbers from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from tdc_deploy.errors import TdcError


def read_labels(path: Path, names: Sequence[str] | None, count: int) -> list[int]:
    """The class number of every sample: lines `file,label`, or one number a line in the samples' order.

    `names` are the samples' file names, relative to their folder; a line may give only the last part
    where that is unique. Lines for other files are passed over, and so is a heading.

    Raises:
        TdcError: it cannot be read, is neither, or leaves a sample without a label.
    """
    rows = _rows(path)
    if all(len(row) == 1 for row in rows):
        if len(rows) != count:
            raise TdcError(
                f"{path} has {len(rows)} labels for {count} samples", expected="one each"
            )
        return [_number(path, row[0]) for row in rows]
    if names is None or any(len(row) != 2 for row in rows):
        kinds = "label" if names is None else "label, or file,label"
        raise TdcError(f"{path} has lines of {len(rows[-1])} fields", expected=f"lines of {kinds}")
    known = {name: _number(path, label) for name, label in rows}
    return [known[key] for key in _keys(path, names, known)]


def _keys(path: Path, names: Sequence[str], known: dict[str, int]) -> list[str]:
    short = [name.rpartition("/")[2] for name in names]
    unique = len(set(short)) == len(short)
    keys = []
    for name, last in zip(names, short, strict=True):
        key = name if name in known or not unique else last
        if key not in known:
            raise TdcError(f"{path} has no label for {name}", expected="one for every sample")
        keys.append(key)
    return keys


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[field.strip() for field in row] for row in csv.reader(file) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TdcError(
            f"the labels {path} cannot be read: {error}", expected="a CSV file of file,label"
        ) from None
    if len(rows) > 1 and not _is_number(rows[0][-1]):
        del rows[0]
    if not rows:
        raise TdcError(f"{path} holds no labels", expected="lines of file,label")
    return rows


def _number(path: Path, text: str) -> int:
    if not _is_number(text):
        raise TdcError(f"label {text!r} in {path}", expected="a class number")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
