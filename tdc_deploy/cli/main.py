"""Entry point of `tdc-deploy`."""

from __future__ import annotations

import json
import sys

import typer

from tdc_deploy import __version__
from tdc_deploy.cli import bench, build, doctor, inspect, plan, plugin, tactics, triton
from tdc_deploy.errors import TdcError

USER_ERROR = 2

app = typer.Typer(
    help="Make a CNN faster: Tucker-2 ranks by measured time, fused, verified, ready to deploy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("build")(build.build)
app.command("plan")(plan.plan)
app.command("inspect")(inspect.inspect)
app.command("bench")(bench.bench)
app.command("tactics")(tactics.tactics)
app.command("triton")(triton.triton)
app.command("doctor")(doctor.doctor)
app.add_typer(plugin.app, name="plugin")


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        typer.echo(f"tdc-deploy {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a TdcError is printed without a traceback and exits with 2."""
    try:
        app()
    except TdcError as error:
        if "--json" in sys.argv:
            fields = {"received": error.received, "expected": error.expected, "fix": error.fix}
            typer.echo(json.dumps({"error": fields}, indent=1))
        typer.echo(f"error: {error}", err=True)
        sys.exit(USER_ERROR)


if __name__ == "__main__":
    main()
