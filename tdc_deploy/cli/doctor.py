"""`tdc-deploy doctor`: what this machine can do, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from tdc_deploy.cli import options
from tdc_deploy.cli.output import Output

if TYPE_CHECKING:
    from tdc_deploy.diagnosis import Check

MARKS = {"ok": "ok", "missing": "missing", "broken": "BROKEN"}


def doctor(
    store: options.StoreOption = None,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Say what this machine can do; exits with 2 if the core itself is broken."""
    from tdc_deploy.diagnosis import diagnose

    out = Output(as_json, quiet, verbose)
    checks = diagnose(store)
    out.json([asdict(check) for check in checks])
    print_checks(out, checks)


def print_checks(out: Output, checks: Sequence[Check]) -> None:
    """The table of findings; exits with 2 if something is broken."""
    rows = [(check.name, MARKS[check.status], check.found, check.effect) for check in checks]
    out.table(("check", "status", "found", "what follows"), rows)
    if any(check.status == "broken" for check in checks):
        raise typer.Exit(2)
