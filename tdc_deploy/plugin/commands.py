"""Run a build's programs: output to a log, progress to the caller, nothing left running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
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
    with log.open("ab") as file, _HeldInterrupt() as held:
        file.write((" ".join(command) + "\n").encode())
        file.flush()
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,  # a Ctrl-C reaches only us: we end the whole group ourselves
        )
        assert process.stdout is not None
        try:
            held.release()
            for line in process.stdout:
                file.write(line)
                _report(line, what, progress)
            process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            process.stdout.close()
    if process.returncode != 0:
        raise CommandError(process.returncode, _tail(log))


class _HeldInterrupt:
    """Keeps a Ctrl-C back until `release`: one that fell into the start of a process would leave it
    running, with no one to end it. Other threads than the main one never see it anyway.
    """

    def __init__(self) -> None:
        self._came = False
        self._held = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> _HeldInterrupt:
        if self._held:
            self._usual = signal.signal(signal.SIGINT, self._note)
        return self

    def release(self) -> None:
        """From here on it has its usual effect, and so has one that came meanwhile."""
        if self._held:
            self._held = False
            signal.signal(signal.SIGINT, self._usual)
            if self._came:
                signal.raise_signal(signal.SIGINT)

    def __exit__(self, *_: object) -> None:
        self.release()

    def _note(self, *_: object) -> None:
        self._came = True


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
