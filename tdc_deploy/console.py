"""What both command lines have: their root, and how they end, by errors that the user can mend or bugs."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable

import typer

from tdc_deploy import __version__
from tdc_deploy.errors import TdcError

USER_ERROR = 2


def command_line(name: str, help_text: str) -> typer.Typer:
    """A command line without commands yet, which prints its version."""
    app = typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback(invoke_without_command=True)
    def _root(
        version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    ) -> None:
        if version:
            typer.echo(f"{name} {__version__}")
            raise typer.Exit

    return app


def run(app: Callable[[], object]) -> None:
    """Run a command line; a warning is one line, a TdcError has no traceback and exits with 2."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        app()
    except TdcError as error:
        if "--json" in sys.argv:
            fields = {"received": error.received, "expected": error.expected, "fix": error.fix}
            sys.stdout.write(json.dumps({"error": fields}, indent=1) + "\n")
        sys.stderr.write(f"error: {error}\n")
        sys.exit(USER_ERROR)
