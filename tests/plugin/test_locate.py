from __future__ import annotations

import os
from pathlib import Path

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.plugin import locate
from tdc_deploy.plugin.locate import (
    BuildKey,
    build_command,
    find_plugin,
    has_code_for,
    installed_tensorrt_major,
    wanted_architectures,
    wanted_major,
)
from tdc_deploy.plugin.sources import source_hash, source_root

pytestmark = pytest.mark.usefixtures("no_gpu", "no_tensorrt")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TDC_PLUGIN", raising=False)


def gpus(monkeypatch: pytest.MonkeyPatch, *capabilities: int) -> None:
    monkeypatch.setattr(locate, "compute_capabilities", lambda: list(capabilities))


def kept(*architectures: int, major: int = 10, sources: str | None = None, age: int = 0) -> Path:
    """An empty file in the place of this build, modified `age` seconds ago."""
    key = BuildKey(major, architectures, sources or source_hash(source_root()))
    key.path.parent.mkdir(parents=True)
    key.path.touch()
    os.utime(key.path, (1e9 - age, 1e9 - age))
    return key.path


def test_the_variable_overrides_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.so"
    mine.touch()
    monkeypatch.setenv("TDC_PLUGIN", str(mine))
    assert find_plugin() == mine
    monkeypatch.setenv("TDC_PLUGIN", str(tmp_path / "none.so"))
    with pytest.raises(TdcError, match="which is no file"):
        find_plugin()


def test_a_build_for_every_gpu_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 86, 90)
    kept(80), kept(90)
    with pytest.raises(TdcError, match="sm_86, sm_90; 2 other builds"):
        find_plugin(10)
    both = kept(80, 90)
    assert find_plugin(10) == both


@pytest.mark.parametrize(
    ("built", "gpu", "runs"), [(80, 80, 1), (80, 86, 1), (86, 80, 0), (80, 90, 0), (90, 89, 0)]
)
def test_what_runs_where(built: int, gpu: int, runs: int) -> None:
    assert BuildKey(10, (built,), "0").runs_on(gpu) == bool(runs)


@pytest.mark.parametrize(
    ("built", "gpu", "runs"),
    [
        ((80,), 90, True),  # PTX
        ((80, 90), 89, True),
        ((80, 90), 120, True),
        ((90,), 80, False),
        ((80, 120), 90, False),  # neither machine code of its major version, nor PTX so old
        ((), 80, False),
    ],
)
def test_where_a_build_has_code_to_run(built: tuple[int, ...], gpu: int, runs: bool) -> None:
    assert has_code_for(built, gpu) == runs


def test_a_build_that_other_gpus_run_too(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 90)
    others = (80, 86, 89, 90, 100, 120)
    newest = kept(90)
    assert find_plugin(10) == newest
    with pytest.raises(TdcError, match="that other GPUs run too; 1 other build") as caught:
        find_plugin(10, others)
    assert caught.value.fix.endswith("tdc-deploy plugin build --architectures 80,90")
    both = kept(80, 90, age=9)
    assert find_plugin(10, others) == both
    assert find_plugin(10) == newest


@pytest.mark.parametrize(
    ("own", "architectures"), [((86,), "80,86"), ((120,), "80,90,100,120"), ((), "80")]
)
def test_the_command_builds_what_is_asked_for(own: tuple[int, ...], architectures: str) -> None:
    others = (80, 86, 87, 89, 90, 100, 120)
    command = build_command(own, others)
    assert command == f"tdc-deploy plugin build --architectures {architectures}"
    built = [int(part) for part in architectures.split(",")]
    assert all(has_code_for(built, gpu) for gpu in (*own, *others, 121))
    assert build_command(own, ()) == "tdc-deploy plugin build"


def test_without_a_gpu_the_newest_build_serves() -> None:
    kept(80, age=9)
    newest = kept(90)
    kept(86, age=5)
    assert find_plugin(10) == newest


def test_builds_of_other_sources_or_another_tensorrt_do_not_serve() -> None:
    kept(90, sources="0123456789ab")
    kept(90, major=11)
    with pytest.raises(TdcError, match="no plugin library for TensorRT 10; 2 other builds"):
        find_plugin(10)
    assert find_plugin(11).name == "libtdc_plugins_trt11.so"


def test_a_failed_build_leaves_a_log_that_is_no_library() -> None:
    path = kept(90)
    path.rename(path.with_name("build.log"))
    with pytest.raises(TdcError, match="no plugin library"):
        find_plugin(10)


def test_the_major_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wanted_major(8) == 8
    with pytest.raises(TdcError, match="no TensorRT is installed"):
        wanted_major(None)
    with pytest.raises(TdcError, match="TensorRT 9"):
        wanted_major(9)
    monkeypatch.setattr(locate, "installed_tensorrt_major", lambda: 10)
    assert wanted_major(None) == 10


@pytest.mark.parametrize(
    ("name", "version", "major"),
    [
        ("tensorrt", "10.16.1.11", 10),
        ("tensorrt_cu13", "11.1.0", 11),
        ("tensorrt-lean-cu12-libs", "11.4.0", None),
        ("tensorrt_lean_cu13_bindings", "10.16.1.11", 10),
        ("torch-tensorrt", "2.5.0", None),
        ("tensorrt", "8.5.2.2", 8),
    ],
)
def test_which_package_tells_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str, major: int | None
) -> None:
    monkeypatch.undo()
    info = tmp_path / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert installed_tensorrt_major() == major


def test_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wanted_architectures([90, 80, 90]) == (80, 90)
    with pytest.raises(TdcError, match="no NVIDIA GPU"):
        wanted_architectures(None)
    gpus(monkeypatch, 90, 90)
    assert wanted_architectures(None) == (90,)
    gpus(monkeypatch, 72)
    with pytest.raises(TdcError, match=r"a GPU of compute capability 7\.2") as caught:
        wanted_architectures(None)
    assert "Xavier" in str(caught.value.expected)
    with pytest.raises(TdcError, match=r"the compute capability 7\.5"):
        wanted_architectures([90, 75])
