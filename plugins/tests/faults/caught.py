#!/usr/bin/env python3
"""Passes if a test fails as it should.

    caught.py TEXT COMMAND...

Runs the command, which must fail and print TEXT.
"""

from __future__ import annotations

import subprocess
import sys


def main(text: str, *command: str) -> int:
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode and text in result.stdout:
        return 0
    print(result.stdout[-5000:])
    print(f'exit status {result.returncode}; expected a failure that prints "{text}"')
    return 1


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
