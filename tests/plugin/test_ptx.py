"""Compiling device code to PTX, with a program in nvcc's place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.plugin.ptx import compile_ptx
from tdc_deploy.plugin.toolchain import nvcc_release

# Counts its calls, and writes its arguments and the source where nvcc writes the PTX.
NVCC = """#!/bin/sh
if [ "$1" = --version ]; then echo {version}; exit 0; fi
echo call >> {calls}
{trouble}
for last; do :; done
{{ echo "$*"; cat "$(dirname "$last")/kernel.cu"; }} > "$last"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that gets a line for each compilation."""
    write_nvcc(tmp_path)
    monkeypatch.setenv("CUDACXX", str(tmp_path / "nvcc"))
    monkeypatch.setenv("TDC_DEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "calls"


def write_nvcc(folder: Path, version: str = "13.0", trouble: str = "") -> None:
    text = NVCC.format(calls=folder / "calls", version=version, trouble=trouble)
    (folder / "nvcc").write_text(text)
    (folder / "nvcc").chmod(0o755)


def test_it_is_compiled_for_the_capability(calls: Path) -> None:
    text = compile_ptx("the source\n", 86).read_text()
    assert "-arch=compute_86 " in text
    assert "-ptx " in text
    assert text.endswith("the source\n")
    assert calls.read_text().splitlines() == ["call"]


def test_what_is_there_is_not_compiled_again_and_other_things_are(
    calls: Path, tmp_path: Path
) -> None:
    paths = [compile_ptx(source, number) for source in "ab" for number in (80, 90)]
    assert len(set(paths)) == 4
    assert [compile_ptx(source, number) for source in "ab" for number in (80, 90)] == paths
    assert len(calls.read_text().splitlines()) == 4
    write_nvcc(tmp_path, "13.1")
    assert compile_ptx("a", 80) not in paths


def test_nvccs_release(calls: Path, tmp_path: Path) -> None:
    write_nvcc(tmp_path, "Cuda compilation tools, release 12.8, V12.8.93")
    assert nvcc_release(str(tmp_path / "nvcc")) == (12, 8)
    write_nvcc(tmp_path, "what")
    assert nvcc_release(str(tmp_path / "nvcc")) is None
    assert not calls.exists()


def test_what_nvcc_refuses_is_told_and_leaves_nothing(calls: Path, tmp_path: Path) -> None:
    write_nvcc(tmp_path, trouble="echo unsupported gpu >&2; exit 3")
    with pytest.raises(TdcError, match=r"compute capability 13\.0") as caught:
        compile_ptx("a", 130)
    assert "unsupported gpu" in caught.value.received
    assert calls.is_file()
    assert not list((tmp_path / "cache").rglob("*.ptx"))


def test_a_cache_that_cannot_be_written(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TDC_DEPLOY_CACHE", str(tmp_path / "file"))
    with pytest.raises(TdcError, match="cannot be written"):
        compile_ptx("a", 80)
    assert not calls.exists()
