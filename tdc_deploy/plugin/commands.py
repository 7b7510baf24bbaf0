"""Run a build's programs: output to a log, progress to the caller, nothing left running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tdc_deploy.progress import Progress

TAIL_LINES = 25
PATIENCE_S = 5.0

# make says "[ 42%]", ninja "[3/17]".
_PERCENT = re.compile(rb"^\[ *(\d+)%\]")
_STEPS = re.compile(rb"^\[(\d+)/(\d+)\]")


class CommandError(Exception):
    """A command's exit code was not 0; `tail` is the end of what it printed."""

    def __init__(self, exit_code: int, tail: str) -> None:
        self.exit_code = exit_code
        self.tail = tail
        super().__init__(f"exit code {exit_code}\n{tail}")


def run_logged(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    what: str,
    progress: Progress,
) -> None:
    """Run a command and append what it prints to `log`.

    Whatever ends this early, Ctrl-C too, ends the command and all that it started.

    Raises:
        CommandError: its exit code is not 0.
    """
    with log.open("ab") as file:
        file.write((" ".join(command) + "\n").encode())
        file.flush()
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,  # a Ctrl-C reaches only us: we end the whole group ourselves
        ) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    file.write(line)
                    _report(line, what, progress)
                process.wait()
            except BaseException:
                _end(process)
                raise
    if process.returncode != 0:
        raise CommandError(process.returncode, _tail(log))


def _report(line: bytes, what: str, progress: Progress) -> None:
    percent, steps = _PERCENT.match(line), _STEPS.match(line)
    if percent:
        progress(what, int(percent[1]), 100)
    elif steps:
        progress(what, int(steps[1]), int(steps[2]))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command's whole group, by force if it takes too long."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
            return


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])
