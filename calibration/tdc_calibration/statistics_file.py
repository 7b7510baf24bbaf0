"""Calibrations in a file: measured once, used by many builds.

A zip archive of .npy arrays, as NumPy's .npz, and `calibration.json`, which says what they are. Of each
moment the lower triangle is kept, in float64: what is read back then decomposes to the same bits as what
was measured. Layers that share a moment share its array.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.moments.accumulator import Array, mirror
from tdc_calibration.ranges import TensorRange
from tdc_calibration.result import VERSION, Calibration
from tdc_deploy import __version__
from tdc_deploy.errors import TdcError
from tdc_deploy.files import write_whole
from tdc_deploy.npz import put_array
from tdc_deploy.source import Source

FORMAT = "tdc-deploy calibration"
HEAD = "calibration.json"
EXPECTED = "a whole file that tdc-deploy calibrate wrote"


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration, whole or not at all.

    Raises:
        TdcError: it cannot be written.
    """
    write_whole({path: _pieces(calibration)})


def is_calibration(path: Path) -> bool:
    """Whether a file looks like a calibration, and not like samples; it may still be damaged.

    An archive whose contents cannot be listed does not: what reads samples then says so.
    """
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return HEAD in archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def read_calibration(path: Path, source: Source | None = None) -> Calibration:
    """Read a calibration; with `source`, only one that was measured on that model.

    Raises:
        TdcError: no such file, damaged or of another version; or it is another model's.
    """
    if not path.is_file():
        raise TdcError(f"no statistics at {path}", fix="tdc-deploy calibrate writes them")
    try:
        with zipfile.ZipFile(path) as archive:
            head = json.loads(archive.read(HEAD))
            _check_version(path, head)
            if source is not None:
                _check_model(path, head, source)
            return _calibration(archive, head)
    # What zipfile, json and NumPy raise on damaged files.
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
        zipfile.BadZipFile,
    ) as error:
        raise TdcError(
            f"{path} cannot be read: {error}",
            expected=EXPECTED,
            fix="measure again: tdc-deploy calibrate",
        ) from None


def _pieces(calibration: Calibration) -> Iterator[bytes]:
    """The archive, an array at a time."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:  # type: ignore[call-overload]
        stored: dict[int, str] = {}
        for moment in calibration.moments.values():
            if id(moment) not in stored:
                stored[id(moment)] = f"moment{len(stored)}"
                put_array(archive, stored[id(moment)], _triangle(moment))
                yield sink.taken()
        for number, found in enumerate(calibration.ranges.values()):
            put_array(archive, f"range{number}.lowest", found.lowest)
            put_array(archive, f"range{number}.highest", found.highest)
            put_array(archive, f"range{number}.counts", found.counts)
        moments = {name: stored[id(m)] for name, m in calibration.moments.items()}
        archive.writestr(HEAD, json.dumps(_head(calibration, moments), indent=1))
    yield sink.taken()


def _head(calibration: Calibration, moments: Mapping[str, str]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "tool_version": calibration.tool_version,
        "model_sha256": calibration.model_sha256,
        "data_sha256": calibration.data_sha256,
        "digests": [digest.hex() for digest in calibration.digests],
        "samples": calibration.samples,
        "accuracy": calibration.accuracy,
        "by_channel": list(calibration.by_channel),
        "skipped": dict(calibration.skipped),
        "warnings": list(calibration.warnings),
        "moments": dict(moments),
        "ranges": [
            {"tensor": name, "start": found.start, "width": found.width}
            for name, found in calibration.ranges.items()
        ],
    }


def _calibration(archive: zipfile.ZipFile, head: Mapping[str, Any]) -> Calibration:
    moments = {name: _square(_get(archive, name)) for name in sorted(set(head["moments"].values()))}
    ranges = {
        entry["tensor"]: TensorRange(
            _get(archive, f"range{number}.lowest"),
            _get(archive, f"range{number}.highest"),
            _get(archive, f"range{number}.counts"),
            float(entry["start"]),
            float(entry["width"]),
        )
        for number, entry in enumerate(head["ranges"])
    }
    accuracy = head["accuracy"]
    return Calibration(
        model_sha256=str(head["model_sha256"]),
        digests=tuple(bytes.fromhex(digest) for digest in head["digests"]),
        samples=int(head["samples"]),
        moments={layer: moments[name] for layer, name in head["moments"].items()},
        by_channel=tuple(head["by_channel"]),
        skipped=dict(head["skipped"]),
        ranges=ranges,
        accuracy=None if accuracy is None else float(accuracy),
        warnings=tuple(head["warnings"]),
        tool_version=str(head["tool_version"]),
    )


def _check_version(path: Path, head: Mapping[str, Any]) -> None:
    if head["format"] != FORMAT:
        raise ValueError(f"it holds a {head['format']}")
    if head["version"] != VERSION:
        raise TdcError(
            f"{path} is of version {head['version']}, written by tdc-deploy {head['tool_version']}",
            expected=f"version {VERSION}, which tdc-deploy {__version__} reads",
            fix="measure again: tdc-deploy calibrate",
        )


def _check_model(path: Path, head: Mapping[str, Any], source: Source) -> None:
    if head["model_sha256"] != source.sha256:
        raise TdcError(
            f"{path} holds statistics of a model with SHA-256 {head['model_sha256']}",
            expected=f"those of {source.path}, which has {source.sha256}",
            fix=f"tdc-deploy calibrate {source.path} --calib DATA -o {path}",
        )


def _square(triangle: NDArray[Any]) -> Array:
    size = math.isqrt(2 * len(triangle))
    if triangle.shape != (size * (size + 1) // 2,):
        raise ValueError("a second moment that is no triangle")
    square = np.empty((size, size))
    start = 0
    for i in range(size):
        square[i, : i + 1] = triangle[start : start + i + 1]
        start += i + 1
    mirror(square)
    return square


def _triangle(moment: Array) -> Array:
    return np.concatenate([row[: i + 1] for i, row in enumerate(moment)])


def _get(archive: zipfile.ZipFile, name: str) -> Any:
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


class _Sink:
    """A file that is written in order, and taken away piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Append."""
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def taken(self) -> bytes:
        """What was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
