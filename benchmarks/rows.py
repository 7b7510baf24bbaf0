"""Results that grow row by row, each in a file of its own, so that a stopped measurement goes on."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.files import write_whole
from tdc_deploy.strict_json import dumps
from tdc_deploy.versions import library_versions

Row = dict[str, Any]


def conditions(threads: int) -> Row:
    """What every row of a table has in common: machine, threads and versions."""
    return {"backend": OnnxRuntimeBackend(threads).describe(), "versions": library_versions()}


class Rows:
    """Rows by key (`resnet18/b1/dense`) in a folder; each is on disk as soon as it is kept.

    `conditions` are those of all rows: a row that is there and was measured under others is an error.
    """

    def __init__(self, folder: Path, conditions: Row) -> None:
        self._folder = folder
        self._conditions = conditions
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> Row | None:
        """The row, or None.

        Raises:
            TdcError: it was measured under other conditions, or is no row.
        """
        path = self._path(key)
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text())
            told, row = found["conditions"], dict(found["row"])
        except (ValueError, KeyError, TypeError):
            raise TdcError(f"{path} holds no row of results", fix="move it away") from None
        if told != self._conditions:
            raise TdcError(
                f"{path} was measured under other conditions: {told}",
                expected=f"{self._conditions}",
                fix="choose another folder, or move that one away",
            )
        return row

    def keep(self, key: str, row: Row) -> Row:
        """Write a row; returns it."""
        whole = {"key": key, "date": date.today().isoformat(), "conditions": self._conditions}
        write_whole({self._path(key): (dumps({**whole, "row": row}) + "\n").encode()})
        return row

    def join(self, keys: list[str], path: Path) -> None:
        """Write those of the rows that are there as one file of results, in the order of `keys`."""
        rows = {key: row for key in keys if (row := self.get(key)) is not None}
        dates = [json.loads(self._path(key).read_text())["date"] for key in rows]
        report = {"date": max(dates, default=None), **self._conditions, "rows": rows}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole({path: (dumps(report) + "\n").encode()})

    def _path(self, key: str) -> Path:
        return self._folder / f"{key.replace('/', '.')}.json"
