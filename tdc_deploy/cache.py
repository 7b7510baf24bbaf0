"""Where this tool keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "TDC_DEPLOY_CACHE"


def cache_folder() -> Path:
    """`$TDC_DEPLOY_CACHE`, else `$XDG_CACHE_HOME/tdc-deploy`, else `~/.cache/tdc-deploy`."""
    folder = os.environ.get(CACHE_VARIABLE)
    if folder is not None:
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tdc-deploy"
