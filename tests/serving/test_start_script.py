"""start-triton.sh, run with a tritonserver that prints how it was called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tdc_deploy.serving.plugin_files import PluginFile, write_plugin

pytestmark = pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")

SERVER = """#!/bin/sh
for word in "$@"; do echo "word $word"; done
echo "preload ${LD_PRELOAD:-}"
"""
LDCONFIG = """#!/bin/sh
echo "	libnvinfer.so.{major} (libc6,x86-64) => /usr/lib/libnvinfer.so.{major}"
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository in a folder with a space in its name, with a plugin and the script."""
    library = tmp_path / "lib.so"
    library.write_bytes(b"a library")
    folder = tmp_path / "my models"
    folder.mkdir()
    write_plugin(folder, PluginFile(library, 10, "0" * 64), "10.9.0")
    return folder


def start(repository: Path, *words: str, major: int = 10, **variables: str) -> tuple[str, str]:
    """The lines that the server printed, and what went to standard error."""
    tools = repository.parent / "tools"
    program(tools / "tritonserver", SERVER)
    program(tools / "ldconfig", LDCONFIG.format(major=major))
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", **variables}
    done = subprocess.run(
        [str(repository / "start-triton.sh"), *words],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.stdout, f"{done.returncode} {done.stderr}"


def test_the_plugin_by_backend_option(repository: Path) -> None:
    out, err = start(repository, "--http-port=1", "a b")
    assert out.splitlines() == [
        f"word --model-repository={repository}",
        f"word --backend-config=tensorrt,plugins={repository}/libtdc_plugins_trt10.so",
        "word --http-port=1",
        "word a b",
        "preload ",
    ]
    assert err == "0 "


def test_the_plugin_by_preload(repository: Path) -> None:
    out, _ = start(repository, "--http-port=1", TDC_PLUGIN_LOAD="preload")
    assert out.splitlines() == [
        f"word --model-repository={repository}",
        "word --http-port=1",
        f"preload libnvinfer.so.10:{repository}/libtdc_plugins_trt10.so",
    ]


def test_another_server_may_be_named(repository: Path) -> None:
    named = program(repository.parent / "mine", "#!/bin/sh\necho mine\n")
    assert start(repository, TRITONSERVER=str(named))[0] == "mine\n"


def test_another_tensorrt_is_warned_of(repository: Path) -> None:
    out, err = start(repository, major=8)
    assert "word --model-repository" in out
    assert "libnvinfer.so.10 is not among" in err


def test_mistakes(repository: Path) -> None:
    assert "expected backend-config or preload" in start(repository, TDC_PLUGIN_LOAD="x")[1]
    (repository / "libtdc_plugins_trt10.so").unlink()
    out, err = start(repository)
    assert out == ""
    assert err.startswith("2 ")
    assert "no plugin at" in err
