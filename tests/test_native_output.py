from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import ctypes
from tdc_deploy.native_output import to_stderr
libc = ctypes.CDLL(None)
print("before")
with to_stderr():
    libc.puts(b"from C")
print("after")
"""


def test_what_c_prints_goes_to_standard_error() -> None:
    # Through pipes, where C keeps its output back until a buffer is full, unless Python is told not to.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "before\nafter\n"
    assert done.stderr == "from C\n"


def test_a_closed_output_is_no_error() -> None:
    program = f"import os; os.close(1)\n{PROGRAM.replace('print', 'str')}"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
