"""Which plugin library this machine uses, and where builds are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from tdc_deploy.cache import cache_folder
from tdc_deploy.errors import TdcError
from tdc_deploy.plugin.driver import compute_capabilities
from tdc_deploy.plugin.sources import source_hash, source_root

PLUGIN_VARIABLE = "TDC_PLUGIN"
TENSORRT_MAJORS = (8, 10, 11)
OLDEST_ARCHITECTURE = 80
_TENSORRT = re.compile(r"tensorrt([-_](lean|dispatch))?([-_]cu\d+)?([-_]bindings)?")
_FOLDER = re.compile(r"trt(\d+)-sm([\d_]+)-([0-9a-f]+)")


@dataclass(frozen=True)
class BuildKey:
    """What a build is for; another one of any of these is another build."""

    tensorrt_major: int
    architectures: tuple[int, ...]
    source_hash: str

    @property
    def path(self) -> Path:
        """The file of this build in the user's cache, whether or not it is there."""
        numbers = "_".join(map(str, self.architectures))
        folder = f"trt{self.tensorrt_major}-sm{numbers}-{self.source_hash}"
        return plugin_folder() / folder / library_name(self.tensorrt_major)

    def runs_on(self, compute_capability: int) -> bool:
        """Whether it holds code for this GPU: of the same major version, and no newer minor one."""
        return any(
            compute_capability // 10 == built // 10 and compute_capability >= built
            for built in self.architectures
        )


def has_code_for(architectures: Sequence[int], compute_capability: int) -> bool:
    """Whether a build for these architectures runs on this GPU, maybe after the driver compiled it.

    Such a build holds machine code for each, and the newest one's PTX, which later GPUs take.
    """
    if not architectures:
        return False
    machine_code = BuildKey(0, tuple(architectures), "").runs_on(compute_capability)
    return machine_code or compute_capability >= max(architectures)


def build_command(own: Sequence[int], others: Sequence[int]) -> str:
    """The command that builds a library for these GPUs, and for others too if there are any."""
    command = "tdc-deploy plugin build"
    if not others:
        return command
    newest = max(own, default=min(others))
    # The oldest of each major version; what is newer than all of `own` takes PTX.
    oldest = {other // 10: other for other in sorted(others, reverse=True) if other <= newest}
    return f"{command} --architectures {','.join(map(str, sorted({*own, *oldest.values()})))}"


def plugin_folder() -> Path:
    """Where builds are kept."""
    return cache_folder() / "plugins"


def library_name(tensorrt_major: int) -> str:
    """The file name that CMake gives the library."""
    return f"libtdc_plugins_trt{tensorrt_major}.so"


def find_plugin(tensorrt_major: int | None = None, others: Sequence[int] = ()) -> Path:
    """The library that `$TDC_PLUGIN` names, else the one in the cache that was built from these sources
    for this TensorRT and for every GPU of this machine.

    `others` are compute capabilities of more GPUs for which a build in the cache must have code.

    Raises:
        TdcError: there is none.
    """
    named = os.environ.get(PLUGIN_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise TdcError(
                f"{PLUGIN_VARIABLE} is {named!r}, which is no file",
                expected="the path of a plugin library",
                fix=f"unset {PLUGIN_VARIABLE}, or set it to what `tdc-deploy plugin build` wrote",
            )
        return Path(named)
    major, capabilities = wanted_major(tensorrt_major), compute_capabilities()
    kept = _kept()
    current = source_hash(source_root())
    for key in kept:
        same = (key.tensorrt_major, key.source_hash) == (major, current)
        here = all(key.runs_on(capability) for capability in capabilities)
        if same and here and all(has_code_for(key.architectures, other) for other in others):
            return key.path
    raise TdcError(
        f"no plugin library for {_described(major, capabilities)}"
        + (" that other GPUs run too" if others else "")
        + (f"; {len(kept)} other builds in {plugin_folder()}" if kept else ""),
        expected=f"a build in {plugin_folder()}, or its path in {PLUGIN_VARIABLE}",
        fix=f"build it: {build_command(capabilities, others)}",
    )


def wanted_major(given: int | None) -> int:
    """The TensorRT major version: as given, else that of the installed TensorRT.

    Raises:
        TdcError: none is given and none installed, or it is not supported.
    """
    major = installed_tensorrt_major() if given is None else given
    supported = ", ".join(map(str, TENSORRT_MAJORS))
    if major is None:
        raise TdcError(
            "no TensorRT is installed in this Python",
            expected=f"one of major version {supported}",
            fix="install TensorRT, or say for which one: --tensorrt-major 10",
        )
    if major not in TENSORRT_MAJORS:
        raise TdcError(f"TensorRT {major}", expected=f"a major version among {supported}")
    return major


def installed_tensorrt_major() -> int | None:
    """The major version of the TensorRT package in this Python; nothing is imported."""
    for found in distributions():
        if _TENSORRT.fullmatch((found.metadata["Name"] or "").lower()):
            return int(found.version.split(".")[0])
    return None


def wanted_architectures(given: Sequence[int] | None) -> tuple[int, ...]:
    """The CUDA architectures to build for: as given, else those of this machine's GPUs.

    Raises:
        TdcError: none is given and there is no GPU, or one is older than the kernels take.
    """
    found = sorted(set(compute_capabilities() if given is None else given))
    if found and found[0] < OLDEST_ARCHITECTURE:
        raise TdcError(
            f"{'a GPU of' if given is None else 'the'} compute capability {found[0] / 10}",
            expected=f"{OLDEST_ARCHITECTURE / 10} or newer (Xavier has 7.2, T4 has 7.5)",
            fix="leave this GPU out: name the others' architectures, such as --architectures 80",
        )
    if not found:
        raise TdcError(
            "no NVIDIA GPU on this machine to build for",
            expected="a GPU, or the architectures of the one that will run the plugin",
            fix="say which, for an A100 or H100: --architectures 80,90",
        )
    return tuple(found)


def _kept() -> list[BuildKey]:
    """The builds in the cache, the newest first."""
    found = []
    for path in plugin_folder().glob("trt*/*.so"):
        parts = _FOLDER.fullmatch(path.parent.name)
        if parts:
            numbers = tuple(map(int, parts[2].split("_")))
            found.append((path.stat().st_mtime, BuildKey(int(parts[1]), numbers, parts[3])))
    newest_first = sorted(found, key=lambda entry: entry[0], reverse=True)
    return [key for _, key in newest_first if key.path.is_file()]


def _described(major: int, capabilities: Sequence[int]) -> str:
    if not capabilities:
        return f"TensorRT {major}"
    return f"TensorRT {major} on sm_" + ", sm_".join(map(str, sorted(set(capabilities))))
