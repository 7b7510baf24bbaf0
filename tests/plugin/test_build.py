"""Builds with fake compilers, but for the last test, which is slow and real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.plugin.build import build_plugin
from tdc_deploy.plugin.library import Library
from tdc_deploy.plugin.locate import find_plugin, plugin_folder
from tests.plugin.conftest import FakeMachine

pytestmark = pytest.mark.usefixtures("no_gpu")


def build(**more: object) -> Path:
    return build_plugin(architectures=[80, 90], tensorrt_major=10, **more)  # type: ignore[arg-type]


def files() -> set[str]:
    """What is in the folder of builds, but for what compilers printed."""
    found = (path for path in plugin_folder().rglob("*") if path.is_file())
    return {path.name for path in found if path.name != "build.log"}


def test_the_library_is_kept_in_the_cache_and_found(machine: FakeMachine) -> None:
    machine()
    steps: list[tuple[str, int, int]] = []
    path = build(progress=lambda *step: steps.append(step))
    assert path == find_plugin(10)
    assert files() == {"libtdc_plugins_trt10.so"}
    asked = path.read_text().split()
    for word in ("-DTDC_PLUGINS=ON", "-DTDC_TENSORRT_MAJOR=10", "-DTDC_ARCHITECTURES=80;90"):
        assert word in asked
    assert "-DBUILD_TESTING=OFF" in asked
    assert steps == [
        ("configuring the plugin", 0, 1),
        ("compiling the plugin", 50, 100),
        ("compiling the plugin", 100, 100),
    ]
    assert "Linking" in (path.parent / "build.log").read_text()


def test_what_is_built_is_not_built_again(machine: FakeMachine) -> None:
    machine()
    path = build()
    machine(without=("cmake", "nvcc"))
    assert build() == path


def test_an_output_of_ones_own(machine: FakeMachine, tmp_path: Path) -> None:
    machine()
    output = tmp_path / "mine.so"
    assert build(output=output) == output
    assert output.read_text().split()[0] == "-S"
    assert files() == set()


def test_tensorrt_headers_are_passed_on(
    machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    (tmp_path / "include").mkdir()
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path))
    assert f"-DTENSORRT_ROOT={tmp_path}" in build().read_text().split()
    with pytest.raises(TdcError, match="no folder include/"):
        build(tensorrt_root=tmp_path / "none", output=tmp_path / "o.so")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("cmake", "no CMake .*\n.*\n.*pip install cmake"),
        ("nvcc", "no CUDA compiler .*\n.*\n.*install the CUDA toolkit"),
        ("c\\+\\+", "no C\\+\\+ compiler .*\n.*\n.*apt-get install g\\+\\+"),
        ("make", "no build tool .*\n.*\n.*pip install ninja"),
    ],
)
def test_missing_programs(machine: FakeMachine, missing: str, message: str) -> None:
    machine(without=(missing.replace("\\", ""),))
    with pytest.raises(TdcError, match=message):
        build()


def test_nvcc_beside_cuda_home(
    machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = machine(without=("nvcc",))
    (tmp_path / "cuda" / "bin").mkdir(parents=True)
    shutil.copy(programs / "make", tmp_path / "cuda" / "bin" / "nvcc")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    assert build().is_file()


def test_a_failed_build_shows_the_end_of_the_log_and_leaves_nothing(machine: FakeMachine) -> None:
    machine(during='i=0; while [ $i -lt 99 ]; do i=$((i+1)); echo "line $i"; done; exit 7')
    with pytest.raises(TdcError) as raised:
        build()
    said = str(raised.value)
    assert "exit code 7" in said and "line 99" in said and "line 9\n" not in said
    log = Path(said.split("read all of it in ")[1])
    assert "line 9\n" in log.read_text()
    assert files() == set()
    machine()
    assert build().is_file()


def test_a_folder_that_cannot_be_written(
    machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    (tmp_path / "file").touch()
    monkeypatch.setenv("TDC_DEPLOY_CACHE", str(tmp_path / "file"))
    with pytest.raises(TdcError, match="cannot be written"):
        build()
    with pytest.raises(TdcError, match="does not exist"):
        build(output=tmp_path / "no" / "folder.so")


def test_two_builds_at_once(machine: FakeMachine) -> None:
    machine(during="sleep 0.3")
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(build())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3 and len(set(made)) == 1
    assert files() == {"libtdc_plugins_trt10.so"}


def test_ctrl_c_ends_the_compilers_and_cleans_up(machine: FakeMachine, tmp_path: Path) -> None:
    """A real process and a real Ctrl-C, in the middle of the build."""
    pid = tmp_path / "pid"
    machine(during=f'echo $$ > "{pid}"; sleep 60')
    words = ["plugin", "build", "--architectures", "80", "--tensorrt-major", "10"]
    command = [sys.executable, "-m", "tdc_deploy.cli.main", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (pid.is_file() and pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode not in (0, 2)
    assert "Traceback" not in said
    assert files() == set() and not list(plugin_folder().glob(".build-*"))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
def test_a_real_build(tmp_path: Path) -> None:
    output = tmp_path / "plugin.so"
    build_plugin(architectures=[80], tensorrt_major=10, output=output)
    library = Library(output)
    info = library.build_info()
    assert info["emulated"] is False
    assert info["architectures"] == "80"
    assert len(library.tactics()) > 20
