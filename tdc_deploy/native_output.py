"""Keep what native libraries print away from a command's own output."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def to_stderr() -> Iterator[None]:
    """What C code prints to standard output meanwhile goes to standard error.

    HiGHS prints a line on some problems whatever its options say, in the middle of what `--json` prints.
    Python's own output of other threads is diverted, too.
    """
    try:
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError, AttributeError):  # closed, or none: nothing to keep clean
        yield
        return
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)


def _flush() -> None:
    """C's buffers, which are written when they are full where standard output is a pipe."""
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
