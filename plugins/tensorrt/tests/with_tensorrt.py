"""Run a command with a TensorRT library that pip fetches: exit 77, with the reason, if it cannot.

with_tensorrt.py --package NAME==VERSION --cache FOLDER --library FILE [--preload FILE] -- COMMAND

The package's wheel is unpacked into FOLDER once, without its dependencies. The command gets the
library's path as its last argument; with --preload, that library and then FILE are preloaded.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SKIPPED = 77


def fetch(package: str, cache: Path) -> Path:
    """Return the folder with the unpacked wheel; exits if pip cannot get it."""
    folder = cache / package.replace("==", "-")
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", temporary]
        pip = subprocess.run([*command, package], capture_output=True, text=True)
        wheels = list(Path(temporary).glob("*.whl"))
        if pip.returncode or not wheels:
            reason = (pip.stderr.strip().splitlines() or ["no wheel"])[-1]
            print(f"skipped: pip cannot fetch {package}: {reason}")
            sys.exit(SKIPPED)
        unpacked = Path(temporary) / "unpacked"
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(unpacked)
        shutil.move(unpacked, folder)
    return folder


def main() -> int:
    """Fetch, run, and return the command's status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", required=True)
    parser.add_argument("--cache", required=True, type=Path)
    parser.add_argument("--library", required=True)
    parser.add_argument("--preload", default="")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    folder = fetch(arguments.package, arguments.cache)
    library = next(folder.rglob(arguments.library))
    environment = dict(os.environ)
    if arguments.preload:
        environment["LD_PRELOAD"] = f"{library}:{arguments.preload}"
    return subprocess.run([*arguments.command, str(library)], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
