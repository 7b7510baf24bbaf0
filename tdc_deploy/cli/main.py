"""Entry point of `tdc-deploy`."""

from __future__ import annotations

import typer

from tdc_deploy import __version__
from tdc_deploy.cli import bench, build, doctor, infer, inspect, plan, plugin, tactics, triton
from tdc_deploy.console import run

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
app.command("infer")(infer.infer)
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
    """Run the command line."""
    run(app)


if __name__ == "__main__":
    main()
