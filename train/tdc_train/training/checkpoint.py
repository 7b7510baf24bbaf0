"""Checkpoints: written whole, checked when they are read, and never the only copy.

`last.pt` is the newest; the one before it stays as `previous.pt`. `next.pt` is there only where a run was
killed while the files were being renamed.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from tdc_deploy.errors import TdcError
from tdc_deploy.files import write_whole

FORMAT = "tdc-train checkpoint"
VERSION = 1
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
NEXT = "next.pt"


@dataclass(frozen=True)
class Checkpoint:
    """All that is needed to rebuild a model, and (but for `best.pt` and the stages' ends) to go on.

    Args:
        recipe: as `recipe_to` makes it.
        model: the state dict of the weights that are evaluated: the moving average if there is one.
        plan: what the model was decomposed by, as in a plan's file, or None while it is dense.
        stage, epoch: how many are done; `epoch` is of the stage that is not done yet.
        training: the loop's state at the epoch's end, or None at the start of a stage.
        rows: the log so far, one row per epoch.
        figures: what is known of this model: its validation accuracy and loss.
        constraints: `Constraints.to_json` of the model's.
        shape, classes: an image's [C, H, W] and the number of classes; None in older files.
    """

    recipe: dict[str, Any]
    model: dict[str, Any]
    plan: dict[str, Any] | None
    stage: int
    epoch: int
    training: dict[str, Any] | None
    rows: list[dict[str, Any]]
    figures: dict[str, float]
    shape: list[int] | None = None
    classes: int | None = None
    constraints: dict[str, Any] | None = None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write one file, whole or not at all."""
    content = {name.name: getattr(checkpoint, name.name) for name in fields(Checkpoint)}
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, **content}, buffer)
    write_whole({path: buffer.getvalue()})


def write_last(folder: Path, checkpoint: Checkpoint) -> None:
    """Make it the newest of the folder. At any moment one of the two files is there and whole."""
    write_checkpoint(folder / NEXT, checkpoint)
    _promote(folder)


def _promote(folder: Path) -> None:
    """Let the next be the last, and the last the previous."""
    with suppress(FileNotFoundError):
        (folder / LAST).replace(folder / PREVIOUS)
    (folder / NEXT).replace(folder / LAST)


def read_last(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there was never one.

    Damaged ones that are newer are renamed to `damaged-…`, so that none of them takes the place of a
    whole one, and a renaming that was cut short is finished.

    Raises:
        TdcError: there are some, and none can be read; then all stay as they are.
    """
    there = held(folder)
    for i, name in enumerate(there):
        try:
            found = read_checkpoint(folder / name)
        except TdcError as error:
            if i == len(there) - 1:
                raise
            warn(f"{error.received}; going on from {there[i + 1]}, one epoch earlier")
            continue
        for damaged in there[:i]:
            (folder / damaged).replace(folder / f"damaged-{damaged}")
        if name == NEXT:
            _promote(folder)
        return found
    return None


def held(folder: Path) -> list[str]:
    """The names of the checkpoints that a run in the folder would go on from, the newest first."""
    return [name for name in (NEXT, LAST, PREVIOUS) if (folder / name).exists()]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. No code in it is run, nor any that it names: `rebuilt` imports that.

    Raises:
        TdcError: no such file, damaged, or not a checkpoint of tdc-train.
    """
    found = _read(path)
    if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
        raise TdcError(f"{path} is not a checkpoint", expected="a file that tdc-train fit wrote")
    if (version := found.pop("version", None)) != VERSION:
        raise TdcError(
            f"{path} is a checkpoint of version {version}", expected=f"version {VERSION}"
        )
    try:
        return Checkpoint(**found)
    except TypeError as error:
        raise TdcError(f"{path} is no whole checkpoint: {error}") from None


def is_finite(model: torch.nn.Module) -> bool:
    """Whether no weight and no statistic is NaN or infinite."""
    return all(
        bool(torch.isfinite(t).all()) for t in model.state_dict().values() if t.is_floating_point()
    )


def _read(path: Path) -> Any:
    try:
        # torch does not look at the checksums that its files carry.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise TdcError(
                f"{path} is damaged (in {damaged})", fix="resume from previous.pt or a copy"
            )
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TdcError(f"no checkpoint at {path}", fix="make one with tdc-train fit") from None
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
        pickle.UnpicklingError,
    ) as error:
        line = str(error).partition("\n")[0] or type(error).__name__
        raise TdcError(
            f"{path} is damaged or no checkpoint: {line}",
            expected="a file that tdc-train fit wrote",
            fix="resume from previous.pt or a copy",
        ) from None
