"""`tdc-train search`: find ranks while training."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from tdc_deploy.cli.output import Output, share
from tdc_deploy.cli.plan import print_layers
from tdc_deploy.errors import TdcError
from tdc_train.cli import options

if TYPE_CHECKING:
    from tdc_train.recipe import Recipe


def search(
    recipe: Annotated[
        Path,
        typer.Argument(help="A TOML file with a search stage, or a name that recipes lists."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run, new.")],
    plan: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Also write the plan here; it is kept in the folder anyway."),
    ] = None,
    latency_budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Share of the dense network's time, in place of the recipe's."),
    ] = None,
    backend: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Whose times count: onnxruntime or tensorrt."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's last checkpoint.")
    ] = False,
    changes: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="section.key=value, such as stages.search.epochs=3; several."),
    ] = None,
    data: options.DataOption = None,
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = 0,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Run a recipe up to its rank search, and write the plan that it finds.

    `tdc-train fit` with the same recipe and `--resume` goes on from there.
    """
    from tdc_deploy.files import check_writable
    from tdc_deploy.plan_file import plan_to_json, write_plan
    from tdc_train.recipe_file import read_recipe
    from tdc_train.training.run import fit
    from tdc_train.training.searching import found_plan

    out = Output(as_json, quiet)
    if plan is not None:
        check_writable(plan)
    given = {"budget": latency_budget, "backend": backend}
    read = up_to_search(read_recipe(recipe, changes or ()), given)
    if data is not None:
        read = replace(read, data=replace(read.data, root=str(data.resolve())))
    with out.progress() as progress:
        fit(
            read,
            output,
            resume=resume,
            device=device,
            threads=threads,
            progress=progress,
            warn=out.warn,
        )
    found = found_plan(output, read.stages[-1].name)
    if plan is not None:
        write_plan(found, plan)
    out.json(plan_to_json(found))
    print_layers(out, found)
    if found.network is not None:
        out.text(
            f"network: {found.network.dense_ms:.3f} ms dense, {found.network.measured_ms:.3f} ms measured "
            f"({share(found.network.ratio)} of dense)"
        )
    said = [*(changes or ()), *in_recipe(read.stages[-1].name, given)]
    words = ["tdc-train", "fit", recipe, "-o", output, "--resume"]
    words += [word for change in said for word in ("--set", change)]
    words += [] if data is None else ["--data", data]
    out.text(f"next: {shlex.join(map(str, words))}")


def in_recipe(stage: str, given: Mapping[str, Any]) -> list[str]:
    """The values that are given to a search as changes of its recipe, which a resumed run needs too."""
    return [
        f"stages.{stage}.search.{name}={json.dumps(value)}"
        for name, value in given.items()
        if value is not None
    ]


def up_to_search(recipe: Recipe, given: dict[str, Any]) -> Recipe:
    """The recipe up to its last search, which takes the values that are given.

    Raises:
        TdcError: it has none.
    """
    ends = [i for i, stage in enumerate(recipe.stages) if stage.kind == "search"]
    if not ends:
        raise TdcError(
            "a recipe without a search",
            expected='a stage of kind "search", as in the recipe shapes_resnet20_search',
        )
    *before, stage = recipe.stages[: ends[-1] + 1]
    said = {name: value for name, value in given.items() if value is not None}
    stage = replace(stage, search=replace(stage.search, **said))
    return replace(recipe, stages=(*before, stage))
