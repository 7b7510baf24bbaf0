"""Real builds in processes of their own: killed, two at once, out of space, beside a damaged store."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest

from tdc_deploy.profiling.store import Store
from tdc_deploy.sidecar import read_sidecar
from tests.builders import images, save_model, save_npz, small_cnn

KILLS = 20

# Writes at most so many bytes to a file, as a full disk would; Python ignores the signal.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.argv = ["tdc-deploy", *sys.argv[1:]]
from tdc_deploy.cli.main import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(small_cnn(), tmp_path / "model.onnx")
    save_npz(tmp_path / "inputs.npz", image=images(16))
    (tmp_path / "out").mkdir()
    (tmp_path / "plan.json").write_text(
        '{"layers": {"conv2": {"form": "tucker2", "r_in": 16, "r_out": 16}}}'
    )
    return tmp_path


def words(folder: Path, output: str = "fast.onnx") -> list[str]:
    given = {"-o": folder / "out" / output, "--inputs": folder / "inputs.npz"}
    given |= {"--store": folder / "store.sqlite3"}
    flags = [str(word) for pair in given.items() for word in pair]
    return ["build", str(folder / "model.onnx"), *flags, "--max-error", "0.5", "--threads", "1"]


def start(arguments: list[str], code: str = "") -> subprocess.Popen[str]:
    program = ["-c", code] if code else ["-m", "tdc_deploy.cli.main"]
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def whole(path: Path) -> bool:
    """Whether an artifact is there; if it is, it is whole and its sidecar is its own."""
    if not path.exists():
        return False
    onnx.checker.check_model(str(path), full_check=True)
    assert path.with_name(path.name + ".json").exists()
    assert read_sidecar(path) is not None
    return True


def measured(store: Path) -> set[tuple[str, str]]:
    """Keys and values on disk; none where a build has not begun its store yet."""
    if not store.exists():
        return set()
    connection = sqlite3.connect(store, timeout=30)
    try:
        return set(connection.execute("SELECT key, value FROM measurements"))
    except sqlite3.OperationalError as error:
        assert "no such table" in str(error)
        return set()
    finally:
        connection.close()


def contents(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_nothing_broken(folder: Path) -> None:
    rng, output = random.Random(0), folder / "out" / "fast.onnx"
    begun = time.monotonic()
    assert end(start(words(folder, "first.onnx"))) == (0, "")
    usual = time.monotonic() - begun
    finished, kept = 0, list[int]()
    for number in range(KILLS):
        if number % 5 == 0:
            (folder / "store.sqlite3").unlink()  # so that builds take as long again
        process = start(words(folder))
        time.sleep(rng.uniform(0, usual))
        before = measured(folder / "store.sqlite3")
        process.kill()
        code, _ = end(process)
        finished += code == 0
        whole(output)
        with Store(folder / "store.sqlite3") as store:
            assert len(store) >= len(before)
        assert before <= measured(folder / "store.sqlite3")
        kept.append(len(before))
    assert not list(folder.glob("*.bak"))
    assert finished < KILLS
    assert any(kept)  # of what some killed builds had measured
    code, said = end(start(words(folder)))
    assert code == 0, said
    assert whole(output)


@pytest.mark.slow
def test_two_builds_at_once_share_a_store(folder: Path) -> None:
    both = [start(words(folder, name)) for name in ("one.onnx", "two.onnx")]
    for process in both:
        code, said = end(process)
        assert (code, said) == (0, "")
    assert whole(folder / "out" / "one.onnx") and whole(folder / "out" / "two.onnx")
    assert not list(folder.glob("*.bak"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["garbage", "version", "cut"])
def test_a_store_of_another_kind_is_set_aside_with_a_warning(folder: Path, damage: str) -> None:
    path = folder / "store.sqlite3"
    with Store(path) as store:
        for number in range(200):
            store.put("layer", {"number": number}, {"value": "x" * 100})
    content = path.read_bytes()
    if damage == "version":
        content = content[:60] + (99).to_bytes(4, "big") + content[64:]  # SQLite's user_version
    path.write_bytes({"garbage": b"garbage" * 999, "cut": content[:9000]}.get(damage, content))
    code, said = end(start([*words(folder), "--plan", str(folder / "plan.json")]))
    assert code == 0, said
    assert said.startswith("warning: the latency store"), said
    (aside,) = folder.glob("*.bak")
    assert aside.name in said
    assert len(said.splitlines()) == 1
    assert whole(folder / "out" / "fast.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "message"), [(2_000, "latency store"), (40_000, "cannot be written")]
)
def test_a_full_disk_is_said_and_leaves_nothing(folder: Path, limit: int, message: str) -> None:
    before = contents(folder / "out")
    # The artifact is larger than 40 kB, a new store larger than 2 kB.
    plan = ["--plan", str(folder / "plan.json")]
    code, said = end(start([*words(folder), *plan], LIMITED.format(limit=limit)))
    assert code == 2, said
    assert message in said and "Traceback" not in said
    assert contents(folder / "out") == before


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX")
def test_a_folder_that_cannot_be_written_is_said_before_any_work(folder: Path) -> None:
    # Not even root writes here.
    output = ["-o", "/proc/self/fast.onnx"]
    code, said = end(start([*words(folder), *output]))
    assert code == 2, said
    assert "cannot be written" in said and "Traceback" not in said
