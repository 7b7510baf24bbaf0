"""NVIDIA's own packages, which pip fetches, to hold the names of their APIs against ours."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


def python_310() -> str:
    """A Python 3.10, the newest that old packages have a wheel for."""
    if platform.python_version().startswith("3.10."):
        return sys.executable
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    kept = [str(path) for path in sorted(versions.glob("3.10.*/bin/python3.10"))]
    found = kept[-1] if kept else shutil.which("python3.10")
    if found is None:
        pytest.skip("needs Python 3.10")
    return found


def fetched(package: str, version: str, python: str, folder: Path) -> Path:
    """The package, unpacked."""
    command = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), f"{package}=={version}"],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        pytest.skip(f"pip cannot fetch {package} {version}: {reason}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(folder / "site")
    wheels[0].unlink()
    return folder / "site"
