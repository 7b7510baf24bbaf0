"""How a command line ends: errors that the user can mend, and bugs."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable

from tdc_deploy.errors import TdcError

USER_ERROR = 2


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
