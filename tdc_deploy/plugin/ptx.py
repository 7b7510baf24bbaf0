"""Compile device code to PTX, which TensorRT puts into an engine; kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from tdc_deploy.cache import cache_folder, make_folder
from tdc_deploy.errors import TdcError
from tdc_deploy.files import write_whole
from tdc_deploy.plugin.commands import CommandError, run_logged
from tdc_deploy.plugin.sources import source_hash, source_root
from tdc_deploy.plugin.toolchain import find_cxx, find_nvcc, nvcc_version
from tdc_deploy.progress import Progress, silent

NVCC_FLAGS = ("-std=c++17", "-O3")


def compile_ptx(source: str, compute_capability: int, progress: Progress = silent) -> Path:
    """The PTX of a translation unit, for one compute capability (10 * major + minor) and newer GPUs.

    `source` is CUDA C++ that includes files of plugins/. What was compiled before, by this nvcc from
    these sources, is not compiled again.

    Raises:
        TdcError: nvcc or the host's compiler is missing or refuses, or the cache cannot be written.
    """
    nvcc, cxx = find_nvcc(), find_cxx()
    path = _kept(source, compute_capability, nvcc)
    if path.is_file():
        return path
    make_folder(path.parent)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "kernel.cu").write_text(source, encoding="utf-8")
        plugins = source_root() / "plugins"
        command = [nvcc, *NVCC_FLAGS, f"-arch=compute_{compute_capability}", "-ccbin", cxx]
        command += ["-I", str(plugins / "include"), "-I", str(plugins), "-ptx"]
        command += [str(folder / "kernel.cu"), "-o", str(folder / "kernel.ptx")]
        try:
            run_logged(command, folder / "log", os.environ, "compiling kernels", progress)
        except CommandError as failure:
            raise TdcError(
                f"nvcc did not compile a kernel for compute capability {compute_capability / 10}; "
                f"its last lines:\n{failure.tail}",
                fix="install a CUDA toolkit that knows this GPU",
            ) from None
        write_whole({path: (folder / "kernel.ptx").read_bytes()})
    return path


def isa_version(ptx: Path) -> str:
    """The version of PTX's instruction set, such as 8.7: the oldest that a driver must know to load it."""
    lines = ptx.read_text(encoding="utf-8").splitlines()
    return next((line.split()[1] for line in lines if line.startswith(".version ")), "unknown")


def _kept(source: str, compute_capability: int, nvcc: str) -> Path:
    version = nvcc_version(nvcc).encode()
    parts = (source, str(compute_capability), source_hash(source_root()), *NVCC_FLAGS)
    digest = hashlib.sha256("\0".join(parts).encode() + version).hexdigest()[:24]
    return cache_folder() / "embedded" / f"{digest}.ptx"
