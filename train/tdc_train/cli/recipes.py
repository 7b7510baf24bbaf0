"""`tdc-train recipes`: those that come with the package."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from tdc_deploy.cli.output import Output
from tdc_train.cli import options


def recipes(
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="Print this one, to edit."),
    ] = None,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """List the recipes that come with tdc-train, or print one."""
    from tdc_train.recipe_file import recipe_text, shipped_recipes

    out = Output(as_json, quiet)
    if name is not None:
        text = recipe_text(name)
        out.json({"name": name, "toml": text})
        out.text(text.rstrip("\n"))
        return
    found = shipped_recipes()
    out.json(found)
    out.table(("recipe", "what it does"), list(found.items()))
