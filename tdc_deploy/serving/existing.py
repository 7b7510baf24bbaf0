"""What stands in a repository already, and whether a new version fits beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.serving.batching import batch_limit
from tdc_deploy.serving.config import CONFIG_NAME, IDENTITY, config_text, differing, read_config
from tdc_deploy.serving.model import ServedModel
from tdc_deploy.serving.options import KeepOrReplace

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_place(repository: Path, name: str) -> None:
    """Raise TdcError if a model of this name cannot be put there, whatever it is."""
    if not _NAME.fullmatch(name):
        raise TdcError(
            f"name {name!r}", expected="letters, digits, _, - and ., and neither - nor . first"
        )
    if repository.exists() and not repository.is_dir():
        raise TdcError(f"{repository} is a file", expected="the folder of a model repository")
    if not repository.absolute().parent.is_dir():
        raise TdcError(
            f"the folder of {repository} does not exist", fix=f"make it: mkdir -p {repository}"
        )
    folder = repository / name
    if folder.exists() and not folder.is_dir():
        raise TdcError(f"{folder} is a file", expected="a model's folder, or nothing")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG_NAME).is_file():
        raise TdcError(
            f"{folder} holds no {CONFIG_NAME}",
            expected="a model that tdc-deploy wrote, or no folder of that name",
            fix="choose another name",
        )


def free_version(folder: Path, wanted: int | None) -> int:
    """The wanted version, else one more than the highest there.

    Raises:
        TdcError: the wanted one is taken, or no version number.
    """
    taken = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    if wanted is None:
        return max(taken, default=0) + 1
    if wanted < 1:
        raise TdcError(f"version is {wanted}", expected="a number of at least 1")
    if wanted in taken:
        raise TdcError(
            f"{folder} has a version {wanted}",
            fix="leave --version out: the next free number is taken",
        )
    return wanted


def new_config(
    path: Path, wanted: Any, choice: KeepOrReplace | None, models: Sequence[ServedModel]
) -> str | None:
    """What config.pbtxt is to hold, None if the one that is there stays.

    Raises:
        TdcError: it is another model's, or has other settings and `choice` does not say what to do.
    """
    if not path.exists():
        return config_text(wanted)
    existing = read_config(path)
    if other := differing(existing, wanted, IDENTITY):
        raise TdcError(
            f"{path} is another model's, which differs in {', '.join(other)}",
            expected="the same inputs, outputs and backend in every version",
            fix="choose another name",
        )
    changed = differing(existing, wanted)
    if changed and choice is None:
        raise TdcError(
            f"{path} has other settings: {', '.join(changed)}",
            expected="--config keep, or --config replace",
        )
    if changed and choice == "replace":
        return config_text(wanted)
    limit = batch_limit(models)
    if limit is not None and existing.max_batch_size > limit:
        raise TdcError(
            f"{path} has max_batch_size {existing.max_batch_size}",
            expected=f"at most {limit}, which the engine was built for",
            fix="--config replace",
        )
    return None
