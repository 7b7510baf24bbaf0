from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.store import SCHEMA_VERSION, Store, default_store_path

WRITES = 150

# Writes numbers of its own and one that both write.
WRITER = """
import sys
from pathlib import Path
from tdc_deploy.profiling.store import Store

path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with Store(path) as store:
    for i in range(count):
        store.put("layer", {"writer": name, "i": i}, i)
        store.put("layer", {"shared": i}, i)
"""


# Waits until all are there, so that they find the same garbage.
OPENER = """
import sys, time, warnings
from pathlib import Path
from tdc_deploy.profiling.store import Store

path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
warnings.simplefilter("ignore")
path.with_name(f"ready{name}").touch()
while len(list(path.parent.glob("ready*"))) < count:
    pass
with Store(path) as store:
    for i in range(5):
        store.put("layer", {"writer": name, "i": i}, i)
"""


def backups(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.*.bak"))


def test_what_was_put_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "store.sqlite3"
    with Store(path) as store:
        assert store.get("layer", {"a": 1}) is None
        store.put("layer", {"a": 1}, {"median": 0.1, "runs": 15})
        assert len(store) == 1
    with Store(path) as store:
        assert store.get("layer", {"a": 1}) == {"median": 0.1, "runs": 15}


def test_it_is_on_disk_before_the_store_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with Store(path) as writing, Store(path) as reading:
        writing.put("layer", {"a": 1}, 0.1)
        assert reading.get("layer", {"a": 1}) == 0.1


def test_floats_come_back_exactly(tmp_path: Path) -> None:
    with Store(tmp_path / "store.sqlite3") as store:
        store.put("layer", {}, [0.1, 1e-300, 2 / 3])
        assert store.get("layer", {}) == [0.1, 1e-300, 2 / 3]


def test_every_part_of_the_description_and_the_kind_count(tmp_path: Path) -> None:
    with Store(tmp_path / "store.sqlite3") as store:
        store.put("layer", {"a": 1, "b": {"c": [1, 2]}}, "first")
        assert store.get("layer", {"b": {"c": [1, 2]}, "a": 1}) == "first"
        assert store.get("layer", {"a": 1, "b": {"c": [2, 1]}}) is None
        assert store.get("layer", {"a": 1}) is None
        assert store.get("trial", {"a": 1, "b": {"c": [1, 2]}}) is None


def test_a_newer_value_replaces_the_older(tmp_path: Path) -> None:
    with Store(tmp_path / "store.sqlite3") as store:
        store.put("layer", {"a": 1}, 1)
        store.put("layer", {"a": 1}, 2)
        assert store.get("layer", {"a": 1}) == 2
        assert len(store) == 1


def test_two_processes_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, str(WRITES)])
        for name in ("one", "two")
    ]
    assert [writer.wait(timeout=600) for writer in writers] == [0, 0]
    with Store(path) as store:
        assert len(store) == 3 * WRITES
        for i in range(WRITES):
            assert store.get("layer", {"writer": "one", "i": i}) == i
            assert store.get("layer", {"writer": "two", "i": i}) == i
            assert store.get("layer", {"shared": i}) == i
    assert backups(path) == []


def test_garbage_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    garbage = b"this is no database " * 500
    path.write_bytes(garbage)
    with Store(path) as store:
        store.put("layer", {"a": 1}, 1)
        assert len(store) == 1
    (aside,) = backups(path)
    assert aside.read_bytes() == garbage
    with Store(path) as store:  # the fresh one is kept
        assert len(store) == 1
    assert backups(path) == [aside]


@pytest.mark.skipif(find_spec("fcntl") is None, reason="locks are fcntl's")
def test_another_waits_until_garbage_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it had the garbage open while a new store is begun, whose journal SQLite would play into it."""
    path = tmp_path / "store.sqlite3"
    path.write_bytes(b"garbage " * 500)
    connect, opened = Store._connect, list[str]()

    def watched(store: Store) -> sqlite3.Connection:
        name = threading.current_thread().name
        opened.append(name)
        try:
            return connect(store)
        finally:
            if len(opened) == 1:
                other.start()
                other.join(0.2)  # as long as it would need

    def open_and_put() -> None:
        with Store(path) as store:
            store.put("layer", {"a": 1}, 1)

    other = threading.Thread(target=open_and_put, name="other")
    monkeypatch.setattr(Store, "_connect", watched)
    with pytest.warns(UserWarning, match="is not one of this version"):
        first = Store(path)
    other.join()
    assert opened == ["MainThread", "MainThread", "other"]
    assert first.get("layer", {"a": 1}) == 1
    (aside,) = backups(path)
    assert aside.read_bytes()[:8] == b"garbage "
    first.close()


def test_a_journal_goes_with_its_file_and_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.sqlite3"
    path.write_bytes(b"garbage " * 500)
    journal = tmp_path / "store.sqlite3-journal"
    replace, journals = Path.replace, list[bool]()

    def watched(source: Path, target: Path) -> Path:
        if source == path:
            journals.append(journal.exists())
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", watched)

    def fails() -> sqlite3.Connection:
        journal.write_bytes(b"old")  # SQLite itself would take this one for none
        raise sqlite3.DatabaseError("garbage")

    connects = [lambda: sqlite3.connect(path), fails]
    monkeypatch.setattr(Store, "_connect", lambda _: connects.pop()())
    with pytest.warns(UserWarning):
        Store(path).close()
    assert journals == [False]
    (aside,) = backups(path)
    assert aside.with_name(f"{aside.name}-journal").read_bytes() == b"old"


def test_processes_that_find_garbage_share_one_new_store(tmp_path: Path) -> None:
    count = 4
    for serial in range(5):
        path = tmp_path / str(serial) / "store.sqlite3"
        path.parent.mkdir()
        path.write_bytes(b"garbage " * 500)
        openers = [
            subprocess.Popen([sys.executable, "-c", OPENER, str(path), str(name), str(count)])
            for name in range(count)
        ]
        assert [opener.wait(timeout=120) for opener in openers] == [0] * count
        assert len(backups(path)) == 1
        with Store(path) as store:
            assert len(store) == 5 * count


def test_a_file_damaged_while_it_is_used_is_the_users_to_mend(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with Store(path) as store:
        store.put("layer", {"a": 1}, 1)
        path.write_bytes(b"garbage " * 2000)
        with pytest.raises(TdcError, match="cannot be written"):
            store.put("layer", {"a": 2}, 2)


def test_an_empty_file_is_a_fresh_store(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    path.touch()
    with Store(path) as store:
        assert len(store) == 0
    assert backups(path) == []


def test_a_file_cut_short_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with Store(path) as store:
        for i in range(300):
            store.put("layer", {"i": i}, "x" * 100)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with Store(path) as store:
        assert store.get("layer", {"i": 299}) is None
        store.put("layer", {"i": 299}, "again")
        assert store.get("layer", {"i": 299}) == "again"
    assert len(backups(path)) == 1


def test_a_file_damaged_within_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with Store(path) as store:
        for i in range(300):
            store.put("layer", {"i": i}, "x" * 100)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8192] = b"\xff" * 8192
    path.write_bytes(content)
    with Store(path) as store:
        for i in range(300):
            assert store.get("layer", {"i": i}) in (None, "x" * 100)
        store.put("layer", {"i": 299}, "again")
        assert store.get("layer", {"i": 299}) == "again"
    assert len(backups(path)) == 1


def test_another_versions_file_is_set_aside_whole(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE measurements (key TEXT)")
    connection.execute("INSERT INTO measurements VALUES ('kept')")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.commit()
    connection.close()
    with Store(path) as store:
        store.put("layer", {"a": 1}, 1)
        assert store.get("layer", {"a": 1}) == 1
    (aside,) = backups(path)
    connection = sqlite3.connect(aside)
    assert connection.execute("SELECT key FROM measurements").fetchall() == [("kept",)]
    connection.close()


def test_a_file_says_which_version_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    Store(path).close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()


def test_a_second_file_is_set_aside_beside_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20260101-000000")  # in the same second
    path = tmp_path / "store.sqlite3"
    for garbage in (b"first garbage " * 100, b"second garbage " * 100):
        path.write_bytes(garbage)
        Store(path).close()
    contents = {aside.read_bytes()[:6] for aside in backups(path)}
    assert contents == {b"first ", b"second"}


def test_a_folder_that_cannot_be_made_is_the_users_to_mend(tmp_path: Path) -> None:
    # The superuser may write anywhere but below a file.
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(TdcError, match="cannot be opened") as caught:
        Store(tmp_path / "file" / "store.sqlite3")
    assert "TDC_DEPLOY_CACHE" in caught.value.fix


def test_a_folder_in_its_place_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="cannot be opened"):
        Store(tmp_path)


def test_the_cache_variable_decides_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TDC_DEPLOY_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_store_path().parent == tmp_path / "mine"
    with Store() as store:
        assert store.path == default_store_path()
        assert store.path.is_file()
    monkeypatch.delenv("TDC_DEPLOY_CACHE")
    assert default_store_path().parent == tmp_path / "xdg" / "tdc-deploy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_store_path().parent == tmp_path / "home" / ".cache" / "tdc-deploy"
