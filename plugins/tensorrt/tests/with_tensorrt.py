"""Run a command with a TensorRT library that pip fetches: exit 77, with the reason, if it cannot.

with_tensorrt.py --package NAME==VERSION --cache FOLDER --library FILE [--preload FILE] -- COMMAND

The library is taken out of the package's wheel once, and kept in FOLDER. The command gets its path
as the last argument; with --preload, it and then the other FILE are preloaded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from platform import machine

SKIPPED = 77
# TensorRT 8.5 has wheels for Python 3.10 and older only; the library inside suits all.
OLDER = ("--platform", f"manylinux_2_17_{machine()}", "--python-version", "3.10")


def fetch(package: str, library: str, cache: Path) -> Path:
    """Return the library's path; exits if pip cannot get its package."""
    path = cache / package.replace("==", "-") / library
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", temporary]
        command += ["--platform", f"manylinux_2_28_{machine()}", *OLDER, package]
        pip = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(temporary).glob("*.whl"))
        if pip.returncode or not wheels:
            reason = (pip.stderr.strip().splitlines() or ["no wheel"])[-1]
            print(f"skipped: pip cannot fetch {package}: {reason}")
            sys.exit(SKIPPED)
        with zipfile.ZipFile(wheels[0]) as wheel:
            member = next(name for name in wheel.namelist() if Path(name).name == library)
            whole = Path(wheel.extract(member, temporary))
        whole.replace(path)  # at once, or not at all
    return path


def main() -> int:
    """Fetch, run, and return the command's status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", required=True)
    parser.add_argument("--cache", required=True, type=Path)
    parser.add_argument("--library", required=True)
    parser.add_argument("--preload", default="")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    library = fetch(arguments.package, arguments.library, arguments.cache)
    environment = dict(os.environ)
    if arguments.preload:
        environment["LD_PRELOAD"] = f"{library}:{arguments.preload}"
    return subprocess.run([*arguments.command, str(library)], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
