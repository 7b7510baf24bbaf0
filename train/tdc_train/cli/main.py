"""Entry point of `tdc-train`."""

from __future__ import annotations

from importlib.util import find_spec

import typer

from tdc_deploy import __version__
from tdc_deploy.console import run
from tdc_deploy.errors import TdcError
from tdc_train.cli import evaluate, export, fit, recipes

app = typer.Typer(
    help="Train CNNs towards Tucker ranks, fine-tune them, and export chains that tdc-deploy fuses.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("fit")(fit.fit)
app.command("eval")(evaluate.evaluate)
app.command("export")(export.export)
app.command("recipes")(recipes.recipes)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        typer.echo(f"tdc-train {__version__}")
        raise typer.Exit


def _checked() -> None:
    if find_spec("torch") is None:
        raise TdcError("no torch here", fix="pip install 'tdc-deploy[train]'")
    app()


def main() -> None:
    """Run the command line."""
    run(_checked)


if __name__ == "__main__":
    main()
