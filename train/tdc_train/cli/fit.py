"""`tdc-train fit`: run a recipe."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from tdc_deploy.cli.output import Output, number, share
from tdc_train.cli import options


def fit(
    recipe: Annotated[
        Path, typer.Argument(help="A TOML file, or a name that tdc-train recipes lists.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run, new.")],
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the folder's last checkpoint; stages to come may change."
        ),
    ] = False,
    changes: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="section.key=value, such as stages.dense.epochs=3; several."),
    ] = None,
    data: options.DataOption = None,
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = 0,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Train by a recipe: checkpoints after each epoch, best.pt, log.csv.

    On several GPUs or machines: torchrun --nproc-per-node 4 -m tdc_train.cli.main fit ...
    """
    from tdc_train.recipe_file import read_recipe
    from tdc_train.training.run import fit as run

    leads = os.environ.get("RANK", "0") == "0"
    out = Output(as_json and leads, quiet or not leads)
    read = read_recipe(recipe, changes or ())
    if data is not None:
        read = replace(read, data=replace(read.data, root=str(data.resolve())))
    with out.progress() as progress:
        result = run(
            read,
            output,
            resume=resume,
            device=device,
            threads=threads,
            progress=progress,
            warn=out.warn,
        )
    out.json({"folder": str(result.folder), "epochs": result.rows})
    ends = [
        row
        for row, after in zip(result.rows, [*result.rows[1:], None], strict=True)
        if after is None or after["stage"] != row["stage"]
    ]
    out.table(
        ("stage", "epochs", "loss", "validation accuracy"),
        [
            (row["stage"], row["epoch"], number(row.get("loss")), share(row["val_accuracy"]))
            for row in ends
        ],
    )
    out.text(f"models, checkpoints and log.csv are in {result.folder}")
