"""Where this tool keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

from tdc_deploy.errors import TdcError

CACHE_VARIABLE = "TDC_DEPLOY_CACHE"


def cache_folder() -> Path:
    """`$TDC_DEPLOY_CACHE`, else `$XDG_CACHE_HOME/tdc-deploy`, else `~/.cache/tdc-deploy`."""
    folder = os.environ.get(CACHE_VARIABLE)
    if folder is not None:
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tdc-deploy"


def make_folder(folder: Path) -> Path:
    """The folder, which is made.

    Raises:
        TdcError: it cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TdcError(
            f"{folder} cannot be written: {error.strerror or error}",
            fix=f"set {CACHE_VARIABLE} to a folder that can",
        ) from None
    return folder
