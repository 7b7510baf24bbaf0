"""A real tritonserver, from PyPI's nvidia-pytriton wheel, on a machine without a GPU.

The wheel has Triton 2.51 with its Python backend, and no other: `StandIns` are Python models in the
place of the ONNX Runtime and TensorRT backends. They serve an unmodified repository, and check its
names, types and dims as those backends do; they do not show that those backends load the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from importlib.metadata import requires
from pathlib import Path

import onnx
import onnxruntime
import pytest

ROOT = Path(__file__).parents[2]
STAND_INS = Path(__file__).parent / "stand_ins"
PYTRITON = "nvidia-pytriton==0.7.0"
# With NumPy 2, this Triton's Python backend returns empty outputs. The same ONNX Runtime as here: outputs
# are compared bit for bit.
PINNED = ("numpy<2", f"onnxruntime=={onnxruntime.__version__}", f"onnx=={onnx.__version__}")
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
GLIBC = (2, 34)
READY_S = 60


def environment() -> Path:
    """A virtual environment with the server, made once and kept; skips the test if it cannot be."""
    _check_machine()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tdc-deploy-tests"
    requirements = [
        *PINNED,
        *(text for text in requires("tdc-deploy") or [] if "extra" not in text),
    ]
    key = hashlib.sha256(" ".join([PYTRITON, *requirements]).encode()).hexdigest()[:12]
    place = base / f"triton-py{MINOR}-{key}"
    if not (place / "bin" / "python").exists():
        # Nothing is there, or it was made from a Python that is gone.
        shutil.rmtree(place, ignore_errors=True)
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as folder:
            made = Path(folder) / "venv"
            _install(made, requirements)
            if not place.exists():
                made.rename(place)
    return place


def _check_machine() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("the wheel with tritonserver is for Linux on x86-64")
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split("."))) < GLIBC:
        pytest.skip(f"tritonserver needs glibc {'.'.join(map(str, GLIBC))}: {name} {version}")
    library = sysconfig.get_config_var("INSTSONAME") or ""
    if not (Path(sysconfig.get_config_var("LIBDIR") or "") / library).is_file():
        pytest.skip("Triton's Python backend needs a shared libpython")


def _install(place: Path, requirements: list[str]) -> None:
    # Not from this environment's link to it, which may go before what is kept here.
    python = Path(sys.base_prefix) / "bin" / f"python{MINOR}"
    subprocess.run([str(python), "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--only-binary=:all:"]
    # The wheel's own requirements are those of its Python package, which is not used.
    for words in (["--no-deps", PYTRITON], requirements):
        done = subprocess.run([*pip, *words], capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            pytest.skip(f"no tritonserver, which pip would install: {reason}")


class TritonServer:
    """tritonserver on a repository, with explicit loading; stop it by `stop`."""

    def __init__(self, repository: Path, scratch: Path, script: Path | None = None) -> None:
        self._place = environment()
        self._packages = self._place / "lib" / f"python{MINOR}" / "site-packages"
        self._triton = self._packages / "pytriton" / "tritonserver"
        http, grpc, self._metrics = _free_ports(3)
        self.http, self.grpc = f"127.0.0.1:{http}", f"127.0.0.1:{grpc}"
        self.log = scratch / "triton.log"
        binary = self._triton / "bin" / "tritonserver"
        start = [str(script)] if script else [str(binary), f"--model-repository={repository}"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*start, *self._arguments(self._backends(scratch / "backends"))],
                env=self._environment() | {"TRITONSERVER": str(binary)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait()

    def load(self, name: str) -> str:
        """Load a model, or load it again; what went wrong, or nothing."""
        request = urllib.request.Request(
            f"http://{self.http}/v2/repository/models/{name}/load", method="POST", data=b"{}"
        )
        try:
            urllib.request.urlopen(request, timeout=READY_S).close()
        except urllib.error.HTTPError as error:
            return str(json.loads(error.read())["error"])
        return ""

    def command(self) -> list[str]:
        """The words that the server was started with."""
        return Path(f"/proc/{self._process.pid}/cmdline").read_text().split("\0")

    def memory(self) -> int:
        """Bytes of private memory of the server and of its Python processes."""
        processes = [self._process.pid, *_children(self._process.pid)]
        return sum(_private_bytes(process) for process in processes)

    def stop(self) -> None:
        """End it, within its own limit."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _backends(self, folder: Path) -> Path:
        # Copied: the server refuses a link that leaves the folder.
        shutil.copytree(STAND_INS, folder)
        shutil.copytree(self._triton / "backends" / "python", folder / "python")
        stub = self._triton / "python_backend_stubs" / MINOR / "triton_python_backend_stub"
        shutil.copy(stub, folder / "python")
        return folder

    def _arguments(self, backends: Path) -> list[str]:
        (http_host, http), (grpc_host, grpc) = self.http.split(":"), self.grpc.split(":")
        return [
            f"--backend-directory={backends}",
            "--model-control-mode=explicit",
            "--disable-auto-complete-config",
            "--allow-gpu-metrics=false",
            f"--http-address={http_host}",
            f"--http-port={http}",
            f"--grpc-address={grpc_host}",
            f"--grpc-port={grpc}",
            f"--metrics-port={self._metrics}",
        ]

    def _environment(self) -> dict[str, str]:
        libraries = (self._packages / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR"))
        return {
            **os.environ,
            "PATH": f"{self._place / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            "PYTHONPATH": str(ROOT),
        }

    def _wait(self) -> None:
        end = time.monotonic() + READY_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"http://{self.http}/v2/health/ready", timeout=5).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise AssertionError(f"tritonserver did not start:\n{self.log.read_text()[-4000:]}")


def _free_ports(count: int) -> list[int]:
    """Different ones: all are held until the last is found."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [int(found.getsockname()[1]) for found in sockets]


def _children(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *_children(child)]
    return found


def _private_bytes(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
