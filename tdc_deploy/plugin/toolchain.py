"""The programs that a build needs: CMake, a build tool, nvcc and the host's C++ compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tdc_deploy.errors import TdcError

CUDA_HOME = Path("/usr/local/cuda")


@dataclass(frozen=True)
class Toolchain:
    """Where each program is."""

    cmake: str
    nvcc: str
    cxx: str
    generator: str

    def environment(self) -> dict[str, str]:
        """The process's environment, naming the compilers as CMake looks for them."""
        return {**os.environ, "CUDACXX": self.nvcc, "CUDAHOSTCXX": self.cxx, "CXX": self.cxx}


def find_toolchain() -> Toolchain:
    """Find the programs.

    Raises:
        TdcError: one is missing; says how to get it.
    """
    return Toolchain(_cmake(), find_nvcc(), find_cxx(), _generator())


def _cmake() -> str:
    return shutil.which("cmake") or _missing("CMake", "cmake on the PATH", "pip install cmake")


def find_nvcc() -> str:
    """The CUDA compiler.

    Raises:
        TdcError: there is none.
    """
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), str(CUDA_HOME)]
    beside = [str(Path(home) / "bin" / "nvcc") for home in homes if home]
    found = _first([os.environ.get("CUDACXX"), "nvcc", *beside])
    if found:
        return found
    return _missing(
        "CUDA compiler",
        f"nvcc on the PATH, or in CUDA_HOME or {CUDA_HOME}",
        "install the CUDA toolkit; on another machine, set TDC_PLUGIN to a library built elsewhere",
    )


def nvcc_version(nvcc: str) -> str:
    """All that it says of its version."""
    return subprocess.run(
        [nvcc, "--version"], capture_output=True, check=False, text=True, errors="replace"
    ).stdout


def nvcc_release(nvcc: str) -> tuple[int, int] | None:
    """The CUDA toolkit's version, (major, minor); None if it does not say."""
    found = re.search(r"release (\d+)\.(\d+)", nvcc_version(nvcc))
    return (int(found[1]), int(found[2])) if found else None


def find_cxx() -> str:
    """The host's C++ compiler.

    Raises:
        TdcError: there is none.
    """
    return _first([os.environ.get("CXX"), "c++", "g++", "clang++"]) or _missing(
        "C++ compiler", "c++, g++ or clang++ on the PATH, or CXX", "apt-get install g++"
    )


def _generator() -> str:
    if shutil.which("ninja"):
        return "Ninja"
    if shutil.which("make"):
        return "Unix Makefiles"
    return _missing("build tool", "ninja or make on the PATH", "pip install ninja")


def _first(candidates: Sequence[str | None]) -> str | None:
    """The first that is a program."""
    return next((path for name in candidates if name and (path := shutil.which(name))), None)


def _missing(what: str, expected: str, fix: str) -> str:
    raise TdcError(f"no {what} on this machine", expected=expected, fix=fix)
