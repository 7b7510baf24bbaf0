from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.files import check_writable, whole_folder, write_whole


@pytest.fixture
def umask() -> Iterator[None]:
    """Put back the umask that a test sets."""
    old = os.umask(0o022)
    yield
    os.umask(old)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_at(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> None:
    """Let the `call`-th fsync raise."""
    calls = []
    original = os.fsync

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) == call:
            raise error
        original(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def test_all_files_are_written_and_nothing_else(tmp_path: Path) -> None:
    large = os.urandom(1 << 20)
    write_whole({tmp_path / "a.onnx": large, tmp_path / "b.json": b"{}"})
    assert (tmp_path / "a.onnx").read_bytes() == large
    assert (tmp_path / "b.json").read_bytes() == b"{}"
    assert names(tmp_path) == ["a.onnx", "b.json"]


def test_old_content_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a longer old content")
    write_whole({path: b"new"})
    assert path.read_bytes() == b"new"


def test_a_full_disk_at_the_second_file_keeps_both_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"old a")
    second.write_bytes(b"old b")
    fail_at(monkeypatch, 2, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(TdcError, match="b cannot be written: No space left") as caught:
        write_whole({first: b"new a", second: b"new b"})
    assert caught.value.expected
    assert first.read_bytes() == b"old a"
    assert second.read_bytes() == b"old b"
    assert names(tmp_path) == ["a", "b"]


def test_a_missing_folder_of_the_second_file_keeps_the_first(tmp_path: Path) -> None:
    first = tmp_path / "a"
    first.write_bytes(b"old a")
    with pytest.raises(TdcError, match="does not exist"):
        write_whole({first: b"new a", tmp_path / "missing" / "b": b"new b"})
    assert first.read_bytes() == b"old a"
    assert names(tmp_path) == ["a"]


def test_a_folder_in_the_place_of_the_second_file_keeps_the_first(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"old a")
    second.mkdir()
    with pytest.raises(TdcError, match="b is a folder"):
        write_whole({first: b"new a", second: b"new b"})
    assert first.read_bytes() == b"old a"
    assert names(tmp_path) == ["a", "b"]


def test_an_interrupt_leaves_nothing_and_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "a"
    first.write_bytes(b"old a")
    fail_at(monkeypatch, 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write_whole({first: b"new a", tmp_path / "b": b"new b"})
    assert first.read_bytes() == b"old a"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
@pytest.mark.usefixtures("umask")
def test_the_umask_gives_the_mode(tmp_path: Path, mask: int, mode: int) -> None:
    os.umask(mask)
    write_whole({tmp_path / "a": b"x"})
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
    assert os.umask(mask) == mask  # it was only looked at


def test_check_writable_accepts_new_and_old_files(tmp_path: Path) -> None:
    check_writable(tmp_path / "new")
    (tmp_path / "old").write_bytes(b"x")
    check_writable(tmp_path / "old")
    assert names(tmp_path) == ["old"]


def test_check_writable_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="is a folder"):
        check_writable(tmp_path)


def test_check_writable_refuses_a_missing_folder_and_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="does not exist") as caught:
        check_writable(tmp_path / "missing" / "a")
    assert caught.value.fix.endswith(f"mkdir -p {tmp_path / 'missing'}")


def test_check_writable_refuses_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(TdcError):
        check_writable(tmp_path / "file" / "a")


def test_check_writable_refuses_a_folder_without_write_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The superuser may write anywhere, so the answer is the fake part.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(TdcError, match="cannot be written"):
        check_writable(tmp_path / "a")


@pytest.mark.usefixtures("umask")
def test_a_folder_is_there_when_it_is_whole(tmp_path: Path) -> None:
    target, scratch = tmp_path / "target", tmp_path / "scratch"
    scratch.mkdir()
    with whole_folder(target, scratch) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("text")
        assert names(tmp_path) == ["scratch"]
    assert (target / "sub" / "file").read_text() == "text"
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert names(scratch) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_folder_that_fails_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    expected = TdcError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected), whole_folder(tmp_path / "target", tmp_path) as folder:
        (folder / "file").write_text("text")
        raise error
    assert names(tmp_path) == []


def test_a_folder_that_is_there_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("old")
    refused = pytest.raises(TdcError, match="target cannot be written")
    with refused, whole_folder(target, tmp_path) as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path) == ["target"]
    assert names(target) == ["old"]
