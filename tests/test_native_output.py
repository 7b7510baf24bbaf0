from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, os
from tdc_deploy.native_output import to_stderr
libc = ctypes.CDLL(None)
print("before")
with to_stderr():
    libc.puts(b"from C")
print("after")
os.write(1, b"")
"""


def test_what_c_prints_goes_to_standard_error() -> None:
    # Through pipes, where C's output is kept back until its buffer is full.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout == "before\nafter\n"
    assert done.stderr == "from C\n"


def test_a_closed_output_is_no_error() -> None:
    program = f"import os; os.close(1)\n{PROGRAM.replace('print', 'str')}"
    done = subprocess.run(
        [sys.executable, "-c", program.replace('os.write(1, b"")', "")], check=False
    )
    assert done.returncode == 0
