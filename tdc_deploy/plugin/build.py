"""Build the plugin library from its sources, with CMake and nvcc."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tdc_deploy import __version__
from tdc_deploy.errors import TdcError
from tdc_deploy.files import check_writable, write_whole
from tdc_deploy.plugin.commands import CommandError, run_logged
from tdc_deploy.plugin.locate import (
    BuildKey,
    library_name,
    plugin_folder,
    wanted_architectures,
    wanted_major,
)
from tdc_deploy.plugin.sources import source_hash, source_root
from tdc_deploy.plugin.toolchain import Toolchain, find_toolchain
from tdc_deploy.progress import Progress, silent

TENSORRT_VARIABLE = "TENSORRT_ROOT"


def build_plugin(
    *,
    architectures: Sequence[int] | None = None,
    tensorrt_major: int | None = None,
    tensorrt_root: Path | None = None,
    output: Path | None = None,
    progress: Progress = silent,
) -> Path:
    """Build the library, and return its path: `output`, else its place in the user's cache.

    `architectures` (such as 80 and 90) are by default those of this machine's GPUs, `tensorrt_major` is
    that of the installed TensorRT, and `tensorrt_root` (a folder with TensorRT's include/) is
    `$TENSORRT_ROOT`, or none. What the cache already has is not built again. The file appears whole or
    not at all, and two processes may build at once; what the compilers print is kept beside it, in
    build.log.

    Raises:
        TdcError: a program is missing, nothing says what to build for, a folder cannot be written, or the
            compilation failed.
    """
    key = BuildKey(
        wanted_major(tensorrt_major),
        wanted_architectures(architectures),
        source_hash(source_root()),
    )
    if output is not None:
        check_writable(output)
    elif key.path.is_file():
        return key.path
    target = output or key.path
    tools = find_toolchain()
    folder = _scratch_folder()
    try:
        built = _compile(folder, key, _root(tensorrt_root), tools, progress)
        _put(built, target)
    except CommandError as failure:
        raise TdcError(
            f"the plugin was not built (exit code {failure.exit_code}); the compilers' last lines:\n"
            f"{failure.tail}",
            fix=f"read all of it in {log_path(key)}",
        ) from None
    finally:
        _keep_log(folder / "build.log", key)
        shutil.rmtree(folder, ignore_errors=True)
    return target


def log_path(key: BuildKey) -> Path:
    """What the compilers printed in the latest build of this key."""
    return key.path.parent / "build.log"


def _root(given: Path | None) -> Path | None:
    named = os.environ.get(TENSORRT_VARIABLE)
    root = given or (Path(named) if named else None)
    if root is not None and not (root / "include").is_dir():
        raise TdcError(
            f"no folder include/ in {root}",
            expected="the folder of an unpacked TensorRT, with its headers",
            fix=f"correct --tensorrt-root or {TENSORRT_VARIABLE}",
        )
    return root


def _scratch_folder() -> Path:
    """A new folder on the cache's file system, so that the result can be renamed into place."""
    try:
        plugin_folder().mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=plugin_folder(), prefix=".build-"))
    except OSError as error:
        raise TdcError(
            f"{plugin_folder()} cannot be written: {error.strerror or error}",
            fix="set TDC_DEPLOY_CACHE to a folder that can",
        ) from None


def _compile(
    folder: Path, key: BuildKey, root: Path | None, tools: Toolchain, progress: Progress
) -> Path:
    log, tree = folder / "build.log", folder / "tree"
    defined = {
        "CMAKE_BUILD_TYPE": "Release",
        "BUILD_TESTING": "OFF",
        "TDC_PLUGINS": "ON",
        "TDC_VERSION": __version__,
        "TDC_TENSORRT_MAJOR": str(key.tensorrt_major),
        "TDC_ARCHITECTURES": ";".join(map(str, key.architectures)),
        **({} if root is None else {"TENSORRT_ROOT": str(root.resolve())}),
    }
    words = [tools.cmake, "-S", str(source_root()), "-B", str(tree), "-G", tools.generator]
    words += [f"-D{name}={value}" for name, value in defined.items()]
    progress("configuring the plugin", 0, 1)
    run_logged(words, log, tools.environment(), "configuring the plugin", progress)
    words = [tools.cmake, "--build", str(tree), "--target", "tdc_plugins"]
    words += ["--parallel", str(_workers())]
    run_logged(words, log, tools.environment(), "compiling the plugin", progress)
    name = library_name(key.tensorrt_major)
    for found in tree.rglob(name):
        return found
    raise RuntimeError(f"the build made no {name}")


def _put(built: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TdcError(
            f"{target} cannot be written: {error.strerror or error}",
            expected="a folder that can be written and has room",
        ) from None
    write_whole({target: built.read_bytes()})
    target.chmod(0o755)  # as linkers leave it


def _keep_log(log: Path, key: BuildKey) -> None:
    if log.is_file():
        log_path(key).parent.mkdir(parents=True, exist_ok=True)
        log.replace(log_path(key))


def _workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
