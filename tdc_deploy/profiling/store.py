"""What was measured before: a SQLite file in the user's cache directory."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from tdc_deploy.cache import CACHE_VARIABLE, cache_folder
from tdc_deploy.errors import TdcError

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 30.0


def default_store_path() -> Path:
    """The file that is used unless another is named."""
    return cache_folder() / "measurements.sqlite3"


def _warned(message: str) -> None:
    warnings.warn(message, stacklevel=5)


class Store:
    """Measurements keyed by everything that changes them; each is on disk as soon as it is put.

    Several processes may share a file. One that cannot be read, or that another version wrote, is set
    aside under a new name with a warning, and a fresh one begun, by one process alone. Use as a context
    manager.

    Args:
        path: the file; by default in the user's cache directory.
        warn: takes the warning; by default it is one of Python's.

    Raises:
        TdcError: the folder cannot be written.
    """

    def __init__(self, path: Path | None = None, warn: Callable[[str], None] = _warned) -> None:
        self.path = path or default_store_path()
        self._warn = warn
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._open()
        except (OSError, sqlite3.OperationalError) as error:
            raise TdcError(
                f"the latency store {self.path} cannot be opened: {error}",
                expected="a folder that can be written",
                fix=f"set {CACHE_VARIABLE} to such a folder",
            ) from None

    def get(self, kind: str, description: Mapping[str, Any]) -> Any | None:
        """The JSON value put under this description, or None."""
        try:
            row = self._connection.execute(
                "SELECT value FROM measurements WHERE key = ?", (_key(kind, description),)
            ).fetchone()
            return None if row is None else json.loads(row[0])
        except (sqlite3.DatabaseError, ValueError) as error:
            raise TdcError(
                f"the latency store {self.path} cannot be read: {error}",
                fix=f"move it away, or set {CACHE_VARIABLE} to another folder",
            ) from None

    def put(self, kind: str, description: Mapping[str, Any], value: Any) -> None:
        """Keep a JSON value; an older one of the same description is replaced.

        Raises:
            TdcError: the file cannot be written, or was damaged meanwhile.
        """
        row = (
            _key(kind, description),
            kind,
            _canonical(description),
            json.dumps(value),
            time.time(),
        )
        try:
            with self._connection:
                self._connection.execute(
                    "INSERT OR REPLACE INTO measurements VALUES (?, ?, ?, ?, ?)", row
                )
        except sqlite3.DatabaseError as error:
            raise TdcError(
                f"the latency store {self.path} cannot be written: {error}",
                fix=f"free some space or move the file away, or set {CACHE_VARIABLE} to another folder",
            ) from None

    def kept(self, kind: str, description: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """The JSON value under this description, made and put if there is none; a None is not put.

        Raises:
            TdcError: as `get` and `put`.
        """
        known = self.get(kind, description)
        if known is None:
            known = make()
            if known is not None:
                self.put(kind, description, known)
        return known

    def __len__(self) -> int:
        (count,) = self._connection.execute("SELECT COUNT(*) FROM measurements").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        """The file, or a fresh one in place of what is no store.

        In turns: one that still had the old file open would take the journal of the new one for its own,
        play it back into the old, and work on in that.
        """
        with self._alone():
            return self._connected()

    def _connected(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError:
            raise  # locked or not writable: the file itself may be well
        except sqlite3.DatabaseError as error:
            aside = self._set_aside()
            self._warn(
                f"the latency store {self.path} is not one of this version ({error}): it is kept as "
                f"{aside.name}, and a new one begun"
            )
            return self._connect()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process opens the file. The lock's own file stays: who removed it could remove
        what another one waits for.
        """
        # Windows has none, and does not rename a file that is open elsewhere.
        if find_spec("fcntl") is None:
            yield
            return
        import fcntl

        with self.path.with_name(f"{self.path.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA_VERSION):
                raise sqlite3.DatabaseError(f"schema version {version}")
            (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise sqlite3.DatabaseError(state)
            with connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS measurements (key TEXT PRIMARY KEY, kind TEXT, "
                    "description TEXT, value TEXT, taken REAL)"
                )
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _set_aside(self) -> Path:
        stem = f"{self.path.name}.{time.strftime('%Y%m%d-%H%M%S')}"
        serial = 0
        while (aside := self.path.with_name(f"{stem}-{serial}.bak")).exists():
            serial += 1
        # A journal of the old file must not be played back into the new one. It goes first: once the
        # file has gone, it could be that of a new one.
        with suppress(FileNotFoundError):
            journal = self.path.with_name(f"{self.path.name}-journal")
            journal.replace(aside.with_name(f"{aside.name}-journal"))
        self.path.replace(aside)
        return aside


def _canonical(description: Mapping[str, Any]) -> str:
    return json.dumps(description, sort_keys=True)


def _key(kind: str, description: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{kind}\n{_canonical(description)}".encode()).hexdigest()
