"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdc_deploy.cli.options import JsonOption, QuietOption

__all__ = [
    "DataOption",
    "DeviceOption",
    "JsonOption",
    "ModelArgument",
    "QuietOption",
    "ThreadsOption",
    "TrustOption",
]

# Typer reads these annotations at run time, on Python 3.10 too.
ModelArgument = Annotated[
    Path, typer.Argument(help="A folder of tdc-train fit, or a checkpoint.", show_default=False)
]
DataOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--data", help="Folder of the data set, instead of the recipe's."),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is a GPU.")]
ThreadsOption = Annotated[int, typer.Option(help="torch's threads on a CPU; 0: its own choice.")]
TrustOption = Annotated[
    bool,
    typer.Option("--trust", help="Run the code that the checkpoint names, its module:factory."),
]
