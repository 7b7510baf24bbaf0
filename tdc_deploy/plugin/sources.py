"""The sources that the plugin is built from: the checkout's, or those that a wheel carries."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tdc_deploy.errors import TdcError

# A file that is always there.
MARK = Path("plugins", "kernels", "configs.def")
CMAKE = "CMakeLists.txt"

PACKAGED = Path(__file__).parent / "sources"
CHECKOUT = Path(__file__).parents[2]
TEXTS = (".md", ".pyc")


def source_root() -> Path:
    """The folder with CMakeLists.txt and plugins/: the installed package's, else the checkout's.

    Raises:
        TdcError: neither is there.
    """
    for folder in (PACKAGED, CHECKOUT):
        if (folder / MARK).is_file() and (folder / CMAKE).is_file():
            return folder
    raise TdcError(
        f"no plugin sources in {PACKAGED} nor in {CHECKOUT}",
        expected=f"a folder with {CMAKE} and {MARK.as_posix()}",
        fix="install tdc-deploy again from its wheel, or from a whole checkout",
    )


def source_hash(root: Path) -> str:
    """12 hex digits that change with any file a build may read: all but tests and documents."""
    digest = hashlib.sha256()
    for path in sorted([root / CMAKE, *_files(root / "plugins")]):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _files(plugins: Path) -> list[Path]:
    found = (path for path in plugins.rglob("*") if path.is_file() and path.suffix not in TEXTS)
    return [path for path in found if "tests" not in path.relative_to(plugins).parts]
