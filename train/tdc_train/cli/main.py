"""Entry point of `tdc-train`."""

from __future__ import annotations

from importlib.util import find_spec

from tdc_deploy.console import command_line, run
from tdc_deploy.errors import TdcError
from tdc_train.cli import evaluate, export, fit, ranks, recipes, search

app = command_line(
    "tdc-train",
    "Train CNNs towards Tucker ranks, fine-tune them, and export chains that tdc-deploy fuses.",
)
app.command("fit")(fit.fit)
app.command("eval")(evaluate.evaluate)
app.command("export")(export.export)
app.command("search")(search.search)
app.command("ranks")(ranks.ranks)
app.command("recipes")(recipes.recipes)


def _checked() -> None:
    if find_spec("torch") is None:
        raise TdcError("no torch here", fix="pip install 'tdc-deploy[train]'")
    app()


def main() -> None:
    """Run the command line."""
    run(_checked)


if __name__ == "__main__":
    main()
