"""`tdc-deploy plugin`, on a machine without a GPU and without TensorRT."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tdc_deploy.plugin import registry
from tdc_deploy.plugin.registry import Registration
from tests.cli.conftest import Run
from tests.plugin.conftest import FakeMachine, emulated, machine, no_gpu, no_tensorrt

__all__ = ["emulated", "machine", "no_gpu", "no_tensorrt"]  # fixtures

pytestmark = pytest.mark.usefixtures("no_gpu", "no_tensorrt")

BUILD: list[object] = ["plugin", "build", "--architectures", "80,90", "--tensorrt-major", "10"]


@pytest.fixture(autouse=True)
def _no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MODULES", ())


def test_build_prints_the_path_and_path_finds_it(machine: FakeMachine, run: Run) -> None:
    machine()
    built = run(*BUILD)
    assert built.code == 0, built.err
    assert Path(built.out.strip()).is_file()
    assert run("plugin", "path", "--tensorrt-major", 10).out == built.out
    assert run(*BUILD, "--json").json == {"path": built.out.strip()}
    assert run("plugin", "path", "--tensorrt-major", 10, "--json").json["path"] == built.out.strip()
    assert run(*BUILD, "--quiet").out == ""


def test_verbose_says_what_is_going_on(machine: FakeMachine, run: Run) -> None:
    machine()
    assert "compiling the plugin" in run(*BUILD, "--verbose").err


def test_check_says_what_is_there_and_what_was_not_tried(emulated: Path, run: Run) -> None:
    result = run("plugin", "check", emulated)
    assert result.code == 0
    for words in (
        "emulated",
        "fused",
        "no kernel was run on a GPU",
        "not registered with TensorRT",
    ):
        assert words in result.out
    found = run("plugin", "check", emulated, "--json").json
    assert found["path"] == str(emulated)
    status = {check["name"]: check["status"] for check in found["checks"]}
    assert status == {"build": "ok", "tactics": "ok", "GPU": "missing", "TensorRT": "missing"}


@pytest.mark.parametrize(
    ("registration", "code", "said"),
    [
        (Registration("10.3.0", ("TuckerConv", "TuckerConvAdd")), 0, "10.3.0: TuckerConv, Tuck"),
        (Registration("", (), "exit code -11: "), 2, "BROKEN"),
    ],
)
def test_check_with_tensorrt(
    emulated: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    registration: Registration,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr("tdc_deploy.plugin.check.try_registration", lambda _: registration)
    result = run("plugin", "check", emulated)
    assert (result.code, said in result.out) == (code, True)


FAKE_TENSORRT = """
import ctypes
__version__ = "10.3.0"
class Creator:
    name = {name!r}
class Registry:
    all_creators = [Creator]
    def load_library(self, path):
        return ctypes.CDLL(path)
def get_plugin_registry():
    return Registry()
"""


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (FAKE_TENSORRT.format(name="TuckerConv"), "no creator of TuckerConvAdd"),
        ("raise ImportError('no libnvinfer')", "exit code 1: ImportError: no libnvinfer"),
        ("import os; os.kill(os.getpid(), 11)", "exit code -11"),
    ],
)
def test_registration_happens_in_another_process(
    emulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, problem: str
) -> None:
    (tmp_path / "tensorrt.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "MODULES", ("tensorrt",))
    importlib.invalidate_caches()
    tried = registry.try_registration(emulated)
    assert tried is not None
    assert problem in tried.problem


Case = tuple[str, Callable[[Path], list[object]], str]

CASES: list[Case] = [
    ("no GPU", lambda _: ["plugin", "build", "--tensorrt-major", 10], "no NVIDIA GPU"),
    ("no TensorRT", lambda _: ["plugin", "build", "--architectures", "80"], "--tensorrt-major 10"),
    ("TensorRT 9", lambda _: [*BUILD[:-1], "9"], "TensorRT 9"),
    ("TensorRT ten", lambda _: [*BUILD[:-1], "ten"], "--tensorrt-major"),
    ("sm_90", lambda _: [*BUILD, "--architectures", "sm_90"], "architectures 'sm_90'"),
    ("Turing", lambda _: [*BUILD, "--architectures", "75"], "compute capability 7.5"),
    ("no architecture", lambda _: [*BUILD, "--architectures", ""], "architectures ''"),
    ("no nvcc", lambda _: BUILD, "no CUDA compiler"),
    ("no headers", lambda f: [*BUILD, "--tensorrt-root", f], "no folder include/"),
    ("no folder", lambda f: [*BUILD, "-o", f / "no" / "x.so"], "does not exist"),
    ("a folder as output", lambda f: [*BUILD, "-o", f], "is a folder"),
    ("path: none", lambda _: ["plugin", "path", "--tensorrt-major", 10], "tdc-deploy plugin build"),
    ("path: no TensorRT", lambda _: ["plugin", "path"], "no TensorRT is installed"),
    ("check: none", lambda _: ["plugin", "check", "--tensorrt-major", 10], "no plugin library"),
    ("check: no file", lambda f: ["plugin", "check", f / "no.so"], "no plugin library at"),
    ("check: no library", lambda f: ["plugin", "check", f / "text.so"], "cannot be loaded"),
]


@pytest.mark.parametrize(("name", "words", "message"), CASES, ids=[case[0] for case in CASES])
def test_a_mistake_is_said(
    tmp_path: Path,
    machine: FakeMachine,
    run: Run,
    name: str,
    words: Callable[[Path], list[object]],
    message: str,
) -> None:
    machine(without=("nvcc",) if name == "no nvcc" else ())
    (tmp_path / "text.so").write_text("text")
    result = run(*words(tmp_path))
    assert result.code == 2, result
    said = " ".join((result.out + result.err).split())
    assert message in said, said
    assert "Traceback" not in said


def test_the_error_is_json_where_json_was_asked_for(run: Run) -> None:
    result = run("plugin", "path", "--tensorrt-major", 10, "--json")
    assert result.code == 2
    assert "no plugin library" in result.json["error"]["received"]
