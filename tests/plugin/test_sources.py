from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.plugin import sources
from tdc_deploy.plugin.sources import MARK, source_hash, source_root

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small source tree."""
    for name in ("CMakeLists.txt", str(MARK), "plugins/README.md", "plugins/tests/a.cpp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_a_checkout_is_its_own_source() -> None:
    assert source_root() == ROOT


def test_packaged_sources_come_first(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PACKAGED", tree)
    assert source_root() == tree


def test_no_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PACKAGED", "CHECKOUT"):
        monkeypatch.setattr(sources, name, tmp_path)
    with pytest.raises(TdcError, match="no plugin sources"):
        source_root()


def test_the_hash_follows_what_is_built(tree: Path) -> None:
    before = source_hash(tree)
    (tree / "plugins" / "README.md").write_text("other")
    (tree / "plugins" / "tests" / "a.cpp").write_text("other")
    assert source_hash(tree) == before
    new = tree / "plugins" / "new.cu"
    new.write_text("")
    added = source_hash(tree)
    new.rename(new.with_name("newer.cu"))
    renamed = source_hash(tree)
    (tree / MARK).write_text("other")
    assert len({before, added, renamed, source_hash(tree)}) == 4


@pytest.mark.slow
def test_an_installed_wheel_carries_the_sources(tmp_path: Path) -> None:
    checkout, wheels, venv = tmp_path / "checkout", tmp_path / "wheels", tmp_path / "venv"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(checkout)], check=True)
    (wheel,) = wheels.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if "/tests/" in name or name.startswith("benchmarks")]
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    install = ["-m", "pip", "--quiet", "install", "--no-deps", str(wheel)]
    subprocess.run([python, *install], check=True)
    code = "from tdc_deploy.plugin.sources import *; r = source_root(); print(r, source_hash(r))"
    found = subprocess.run(
        [python, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.split()
    assert found[0].startswith(str(venv)) and found[0].endswith("tdc_deploy/plugin/sources")
    assert found[1] == source_hash(ROOT)
