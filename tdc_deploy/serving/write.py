"""Put a version into a repository, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tdc_deploy.errors import TdcError
from tdc_deploy.files import whole_folder, write_whole
from tdc_deploy.serving.config import CONFIG_NAME
from tdc_deploy.serving.model import ServedModel
from tdc_deploy.sidecar import sidecar_path


@contextmanager
def existing(repository: Path) -> Iterator[None]:
    """Make the repository if it is not there, and remove it again if the block fails."""
    new = not repository.exists()
    try:
        repository.mkdir(exist_ok=True)
    except OSError as error:
        raise TdcError(f"{repository} cannot be made: {error.strerror}") from None
    try:
        yield
    except BaseException:
        if new:
            with suppress(OSError):
                repository.rmdir()
        raise


def write_version(
    folder: Path,
    number: int,
    models: Mapping[str, ServedModel],
    texts: Mapping[str, str],
    config: str | None,
) -> None:
    """Write a version folder, and config.pbtxt if `config` is its new text.

    Args:
        folder: the model's, which need not exist.
        number: the version.
        models: the artifacts by the name of their file.
        texts: other files by name.
        config: None if config.pbtxt stays.

    Raises:
        TdcError: something cannot be written; nothing was.
    """
    new = not (folder / CONFIG_NAME).exists()
    target = folder if new else folder / str(number)
    with whole_folder(target, _scratch(folder.parent)) as temporary:
        version = temporary / str(number) if new else temporary
        version.mkdir(exist_ok=True)
        for file, model in models.items():
            _copy(model, version / file)
        for file, text in texts.items():
            (version / file).write_text(text, encoding="utf-8")
        if new and config is not None:
            (temporary / CONFIG_NAME).write_text(config, encoding="utf-8")
    if not new and config is not None:
        try:
            write_whole({folder / CONFIG_NAME: config.encode()})
        except TdcError:
            shutil.rmtree(folder / str(number))
            raise


def _scratch(repository: Path) -> Path:
    """Where an unfinished folder may stand: beside the repository, as a server that polls takes every
    folder inside for a model; inside, if beside it is another file system or not ours to write.
    """
    beside = repository.absolute().parent
    same = beside.stat().st_dev == repository.stat().st_dev
    return beside if same and os.access(beside, os.W_OK) else repository


def _copy(model: ServedModel, target: Path) -> None:
    """The artifact under Triton's name, its sidecar, and the files with its weights."""
    shutil.copyfile(model.path, target)
    sidecar = sidecar_path(model.path)
    if sidecar.is_file():
        shutil.copyfile(sidecar, sidecar_path(target))
    for weights in model.weights:
        place = target.parent / os.path.relpath(weights, model.path.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, place)
