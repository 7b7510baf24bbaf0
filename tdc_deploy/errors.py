"""The one error that is the user's to fix; everything else that is raised is a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TdcError(Exception):
    """Something the caller can mend: a bad file, flag or value.

    The message says what was received, what was expected and how to fix it. The CLI prints it without
    a traceback and exits with 2.
    """

    def __init__(self, received: str, *, expected: str = "", fix: str = "") -> None:
        self.received = received
        self.expected = expected
        self.fix = fix
        lines = [received]
        if expected:
            lines.append(f"  expected: {expected}")
        if fix:
            lines.append(f"  fix: {fix}")
        super().__init__("\n".join(lines))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The fix for a name that nothing has: the known one nearest to it, or nothing if none is near."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]!r}?" if close else ""
