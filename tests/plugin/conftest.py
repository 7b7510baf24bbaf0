"""The plugin library with emulated kernels, and a machine with fake compilers."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UTILITIES = {name: str(shutil.which(name)) for name in ("sh", "cat", "cp", "mkdir", "sleep")}


@pytest.fixture(scope="session")
def emulated() -> Path:
    """libtdc_plugins_emulated.so, built where `make test-kernels` builds it."""
    if not (shutil.which("cmake") and shutil.which("c++")):
        pytest.skip("needs CMake and a C++ compiler")
    tree = ROOT / "build"
    target = ["--target", "tdc_plugins_emulated", "--parallel", "2"]
    tree.mkdir(exist_ok=True)
    # Two workers must not build in one folder at once.
    with (tree / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in (["-S", str(ROOT), "-B", str(tree)], ["--build", str(tree), *target]):
            subprocess.run(["cmake", *words], check=True, stdout=subprocess.DEVNULL)
    return tree / "plugins" / "api" / "libtdc_plugins_emulated.so"


FAKE_CMAKE = """#!/bin/sh
# Configures by remembering the folder's arguments; builds by writing the library after some steps.
if [ "$1" = "--build" ]; then
    tree=$2
    echo "[ 50%] Building CUDA object fused.cu.o"
    {during}
    echo "[100%] Linking"
    major=$(cat "$tree/major")
    cp "$tree/arguments" "$tree/libtdc_plugins_trt$major.so"
    exit 0
fi
echo "-- Configuring"
while [ $# -gt 0 ]; do
    case "$1" in
        -B) tree=$2; mkdir -p "$tree" ;;
        -DTDC_TENSORRT_MAJOR=*) echo "${{1#*=}}" > "$tree/major" ;;
    esac
    all="$all $1"
    shift
done
echo "$all" > "$tree/arguments"
"""

FakeMachine = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """machine(without=[...], during="...") makes a PATH with fake compilers and nothing else of CUDA.

    `during` is shell code that runs in the middle of a build. Returns the folder of the programs.
    """

    def make(without: tuple[str, ...] = (), during: str = ":") -> Path:
        programs = tmp_path / "programs"
        shutil.rmtree(programs, ignore_errors=True)
        programs.mkdir()
        contents = dict.fromkeys(("nvcc", "c++", "make"), "#!/bin/sh\nexit 0\n")
        contents["cmake"] = FAKE_CMAKE.format(during=during)
        for name, content in contents.items():
            if name not in without:
                (programs / name).write_text(content)
                (programs / name).chmod(0o755)
        for name, where in UTILITIES.items():
            (programs / name).symlink_to(where)
        monkeypatch.setenv("PATH", str(programs))
        for name in ("CXX", "CUDACXX", "CUDA_HOME", "CUDA_PATH", "TENSORRT_ROOT", "TDC_PLUGIN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("tdc_deploy.plugin.toolchain.CUDA_HOME", tmp_path / "no-cuda")
        return programs

    return make


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, whatever this one has."""
    monkeypatch.setattr("tdc_deploy.plugin.locate.compute_capabilities", list)


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without TensorRT, whatever this one has."""
    monkeypatch.setattr("tdc_deploy.plugin.locate.installed_tensorrt_major", lambda: None)
