"""The plugin library in a repository, and the script that starts Triton with it.

Both stand beside the models: Triton takes every folder of a repository for a model, and no file. A
server loads plugins for all models together, so a repository has one library.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.files import write_whole
from tdc_deploy.plugin.locate import find_plugin

SCRIPT_NAME = "start-triton.sh"
_LIBRARY = re.compile(r"libtdc_plugins_trt(\d+)\.so")

SCRIPT = """#!/bin/sh
# Starts Triton on the model repository that this script stands in, with the plugin that its engines
# need. Further arguments go to tritonserver, which $TRITONSERVER may name.
# TDC_PLUGIN_LOAD=preload loads the plugin by LD_PRELOAD, for a Triton that does not know the
# backend option or logs that it could not load it.
set -eu
here=$(cd -- "$(dirname -- "$0")" && pwd)
plugin=$here/{library}
tensorrt=libnvinfer.so.{major}

if [ ! -r "$plugin" ]; then
    echo "start-triton.sh: no plugin at $plugin: add a model to this repository again" >&2
    exit 2
fi
# Engines run on the TensorRT that built them: {version}.
if command -v ldconfig >/dev/null && ! ldconfig -p | grep -q "$tensorrt"; then
    echo "start-triton.sh: warning: $tensorrt is not among this system's libraries" >&2
fi

case ${{TDC_PLUGIN_LOAD:-backend-config}} in
backend-config)
    set -- "--backend-config=tensorrt,plugins=$plugin" "$@"
    ;;
preload)
    # The plugin registers itself with the TensorRT that is loaded before it.
    export LD_PRELOAD="$tensorrt:$plugin${{LD_PRELOAD:+:$LD_PRELOAD}}"
    ;;
*)
    echo "start-triton.sh: TDC_PLUGIN_LOAD is $TDC_PLUGIN_LOAD; expected backend-config or preload" >&2
    exit 2
    ;;
esac
exec "${{TRITONSERVER:-tritonserver}}" "--model-repository=$here" "$@"
"""


@dataclass(frozen=True)
class PluginFile:
    """A plugin library and the TensorRT major version that it is for."""

    path: Path
    major: int
    sha256: str

    @property
    def name(self) -> str:
        """Its file name in a repository."""
        return f"libtdc_plugins_trt{self.major}.so"


def plugin_for(recorded: Mapping[str, Any], tensorrt: str, given: Path | None = None) -> PluginFile:
    """The library that an engine needs: the given one, else this machine's.

    Args:
        recorded: what the engine's sidecar says of it; `sha256` is compared if it is there.
        tensorrt: the version that built the engine.
        given: a library.

    Raises:
        TdcError: there is none, or it is another than the engine was built with.
    """
    major = int(tensorrt.split(".")[0])
    path = find_plugin(major) if given is None else given
    if not path.is_file():
        raise TdcError(f"no plugin library at {path}", fix="check the path")
    named = _LIBRARY.fullmatch(path.name)
    if named and int(named[1]) != major:
        raise TdcError(
            f"{path.name} with an engine of TensorRT {tensorrt}",
            expected=f"libtdc_plugins_trt{major}.so",
            fix=f"build it: tdc-deploy plugin build --tensorrt-major {major}",
        )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if recorded.get("sha256", sha256) != sha256:
        raise TdcError(
            f"{path} is another library than the engine was built with",
            expected=f"SHA-256 {recorded['sha256']}",
            fix="name that one: --plugin PATH; or build the engine again",
        )
    return PluginFile(path, major, sha256)


def check_plugin_fits(repository: Path, plugin: PluginFile, replace: bool) -> None:
    """Raise TdcError if the repository's plugin or script is another, and may not be replaced."""
    for other in repository.glob("libtdc_plugins_trt*.so"):
        if other.name != plugin.name:
            raise TdcError(
                f"{repository} has {other.name}, and the engine needs {plugin.name}",
                expected="engines of one TensorRT: a server has one",
                fix="use another repository",
            )
    existing = repository / plugin.name
    same = not existing.exists() or existing.read_bytes() == plugin.path.read_bytes()
    if not same and not replace:
        raise TdcError(
            f"{existing} is another build of the plugin, which other models may need",
            expected="the same library",
            fix="--replace-plugin if they work with the new one, else another repository",
        )


def write_plugin(repository: Path, plugin: PluginFile, tensorrt: str) -> Path:
    """Put the library and the script into the repository; returns the script.

    A script that is there and names the library stays as it is: someone may have changed it.
    """
    script = repository / SCRIPT_NAME
    files = {repository / plugin.name: plugin.path.read_bytes()}
    if not (script.exists() and plugin.name in script.read_text(errors="replace")):
        files[script] = script_text(plugin, tensorrt).encode()
    write_whole(files)
    script.chmod(script.stat().st_mode | 0o111)
    return script


def script_text(plugin: PluginFile, tensorrt: str) -> str:
    """start-triton.sh."""
    return SCRIPT.format(library=shlex.quote(plugin.name), major=plugin.major, version=tensorrt)
