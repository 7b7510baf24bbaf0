"""Write files whole or not at all, and tell them apart."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tdc_deploy.errors import TdcError


def write_whole(contents: Mapping[Path, bytes | Iterable[bytes]]) -> None:
    """Write several files, each complete: all are on disk under temporary names before the first is
    renamed to its own, in their order. What stood there before stays if anything fails. A content may be
    given in pieces.

    Raises:
        TdcError: a folder is missing or not writable, or the disk is full.
    """
    for path in contents:
        check_writable(path)
    written: dict[Path, str] = {}
    target = next(iter(contents))
    try:
        for path, content in contents.items():
            target = path
            handle, name = tempfile.mkstemp(
                dir=path.parent, prefix=f".{path.name}.", suffix=".part"
            )
            written[path] = name
            with os.fdopen(handle, "wb") as file:
                for piece in [content] if isinstance(content, bytes) else content:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            _usual_mode(name)
        for path, name in written.items():
            target = path
            Path(name).replace(path)
    except OSError as error:
        raise TdcError(
            f"{target} cannot be written: {error.strerror or error}",
            expected="a folder that exists, can be written and has room",
        ) from None
    finally:
        for name in written.values():
            with suppress(FileNotFoundError):
                Path(name).unlink()


@contextmanager
def whole_folder(path: Path, scratch: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `path` when the block ends, and is removed if it fails.

    It is made in the folder `scratch`, of the same file system.

    Raises:
        TdcError: `path` exists and is not empty, its folder is not writable, or the disk is full.
    """
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(dir=scratch, prefix=f".{path.name}.", suffix=".part"))
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _to_disk(file)
        _usual_mode(str(temporary), 0o777)
        temporary.rename(path)
    except OSError as error:
        raise TdcError(
            f"{path} cannot be written: {error.strerror or error}",
            expected="a new folder, in one that exists, can be written and has room",
        ) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def files_sha256(paths: Iterable[Path]) -> str:
    """Hex digest of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def check_distinct(written: Iterable[Path], read: Iterable[Path]) -> None:
    """Raise TdcError if a file that is to be written is one that is read."""
    sources = [path for path in read if path.exists()]
    for path in written:
        for source in sources:
            if path.exists() and path.samefile(source):
                raise TdcError(
                    f"{path} would be overwritten, which this command reads",
                    fix="choose another name for the output",
                )


def check_writable(path: Path) -> None:
    """Fail now rather than after the work if `path` cannot be written."""
    if path.is_dir():
        raise TdcError(f"{path} is a folder", expected="the name of a file to write")
    if not path.parent.is_dir():
        raise TdcError(
            f"the folder of {path} does not exist", fix=f"make it: mkdir -p {path.parent}"
        )
    if not os.access(path.parent, os.W_OK):
        raise TdcError(f"the folder {path.parent} cannot be written", fix="choose another folder")


def _to_disk(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def _usual_mode(name: str, mode: int = 0o666) -> None:
    """What tempfile makes is private; give it the mode that the user's umask asks for."""
    umask = os.umask(0)
    os.umask(umask)
    Path(name).chmod(mode & ~umask)
