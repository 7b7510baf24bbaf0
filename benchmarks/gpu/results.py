"""Results that grow from run to run, in one JSON file."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.files import write_whole
from tdc_deploy.strict_json import dumps

Entry = dict[str, Any]


class Results:
    """Entries by key, each on disk as soon as it is added.

    Raises:
        TdcError: the file holds results of another machine or another build, or is none of ours.
    """

    def __init__(self, path: Path, machine: Entry) -> None:
        self.path = path
        self._data: Entry = {"date": date.today().isoformat(), "machine": machine, "entries": {}}
        if path.is_file():
            found = _read(path)
            if found["machine"] != machine:
                raise TdcError(
                    f"{path} holds results of another machine or build: {found['machine']}",
                    expected=f"results of {machine}",
                    fix="choose another file with --out, or move that one away",
                )
            self._data = found

    @property
    def entries(self) -> dict[str, Entry]:
        """All that is there."""
        entries: dict[str, Entry] = self._data["entries"]
        return entries

    def get(self, name: str) -> Any:
        """A value beside the entries, or None."""
        return self._data.get(name)

    def put(self, name: str, value: Any) -> None:
        """Keep a value beside the entries."""
        self._data[name] = value
        self._write()

    def add(self, key: str, entry: Entry) -> None:
        """Keep an entry."""
        self._data["date"] = date.today().isoformat()
        self.entries[key] = entry
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole({self.path: (dumps(self._data) + "\n").encode()})


def _read(path: Path) -> Entry:
    try:
        data: Entry = json.loads(path.read_text())
        if isinstance(data["machine"], dict) and isinstance(data["entries"], dict):
            return data
    except (ValueError, KeyError, TypeError):
        pass
    raise TdcError(f"{path} holds no results of this benchmark", fix="choose another with --out")
