"""What every command prints with: tables, JSON, and a progress bar on a terminal."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tdc_deploy.progress import Progress as Report
from tdc_deploy.strict_json import dumps

# What a pipe or file gets: tables must not be wrapped to an 80-column guess.
PIPE_WIDTH = 160


class Output:
    """Prints for one command: to standard output what was asked for, to standard error the rest."""

    def __init__(self, as_json: bool, quiet: bool, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        if quiet:
            warnings.simplefilter("ignore")
        self._out = Console(soft_wrap=False)
        if not self._out.is_terminal:
            self._out.width = PIPE_WIDTH
        self._err = Console(stderr=True)

    def json(self, data: Any) -> None:
        """Print JSON, if that was asked for."""
        if self.as_json:
            self._out.print(dumps(data), markup=False, highlight=False, soft_wrap=True)

    def text(self, line: str, style: str = "") -> None:
        """Print a line for a person."""
        if not self.as_json and not self.quiet:
            self._out.print(
                line, style=style or None, markup=False, highlight=False, soft_wrap=True
            )

    def warn(self, line: str) -> None:
        """Print a warning to standard error."""
        if not self.quiet:
            self._err.print(f"warning: {line}", style="yellow", markup=False, soft_wrap=True)

    def table(
        self, headers: Sequence[str], rows: Sequence[Sequence[object]], title: str = ""
    ) -> None:
        """Print a table; all columns but the first are right-aligned."""
        if self.as_json or self.quiet:
            return
        table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
        for i, header in enumerate(headers):
            table.add_column(header, justify="right" if i else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        self._out.print(table, markup=False, highlight=False)

    @contextmanager
    def progress(self) -> Iterator[Report]:
        """A function that shows progress: a bar on a terminal, lines if verbose, else nothing."""
        if self._err.is_terminal and not self.quiet:
            with self._bar() as bar:
                yield _Bar(bar)
        else:
            yield _Lines(self._err if self.verbose and not self.quiet else None)

    def _bar(self) -> Progress:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        return Progress(*columns, console=self._err, transient=True)


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=None)

    def __call__(self, what: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=what, completed=done, total=total)


class _Lines:
    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._last = ""

    def __call__(self, what: str, _done: int, total: int) -> None:
        if self._console is not None and what != self._last:
            self._last = what
            self._console.print(f"{what} ({total})", markup=False)


def ms(value: float | None) -> str:
    """A time in milliseconds to three digits after the point, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def share(value: float | None) -> str:
    """A share as a percentage, or a dash."""
    return "-" if value is None else f"{100 * value:.2f}%"


def number(value: float | None) -> str:
    """A small number to three significant digits, or a dash."""
    return "-" if value is None else f"{value:.3g}"
