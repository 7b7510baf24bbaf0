"""--calib of build and plan."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.builders import images, save_npz
from tests.cli.conftest import Result, Run

PLAN = '{"layers": {"conv2": {"form": "tucker2", "r_in": 8, "r_out": 16}}}'


def test_layers_are_decomposed_for_the_data(run: Run, folder: Path) -> None:
    data = save_npz(folder / "data.npz", image=images(20, seed=3))
    (folder / "plan.json").write_text(PLAN)
    errors = {}
    for flag in ("--data-aware", "--no-data-aware"):
        output = folder / f"{flag}.onnx"
        words = ["build", folder / "model.onnx", "-o", output, "--plan", folder / "plan.json"]
        words += ["--calib", data, flag, "--calib-samples", 16, "--max-error", 1, "--threads", 1]
        done = run(*words, "--inputs", folder / "inputs.npz", "--json")
        assert done.code == 0, done.err
        assert done.json["verification"]["samples"] == 16  # all inputs, none corrects
        assert done.json["verification"]["accuracy_after"] is not None
        errors[flag] = done.json["plan"]["layers"]["conv2"]["error"]
        assert (done.json["plan"]["statistics_sha256"] is not None) == (flag == "--data-aware")
    assert errors["--data-aware"] < errors["--no-data-aware"]


def test_a_plan_for_the_data_alone(run: Run, folder: Path) -> None:
    data = save_npz(folder / "data.npz", image=images(20, seed=3))
    output = folder / "plan.json"
    words = ["--calib", data, "--latency-budget", 0.7, "--threads", 1]
    done = run("plan", folder / "model.onnx", "-o", output, *words)
    assert done.code == 0, done.err
    assert "on random inputs" not in done.out
    assert json.loads(output.read_text())["statistics_sha256"] is not None


def test_warnings_belong_to_the_result(run: Run, folder: Path) -> None:
    """One of calibrating and one of the store: in the sidecar, the JSON, the report and the plan."""
    data = save_npz(folder / "data.npz", image=images(1, seed=3))
    output, page = folder / "out.onnx", folder / "out.html"
    words = ["--calib", data, "--inputs", folder / "inputs.npz", "--max-error", 1, "--threads", 1]
    words += ["--store", folder / "store.sqlite3"]
    with_page = ["--report", page] if find_spec("matplotlib") else []
    said = ("one sample", "the latency store")

    def damaged(*more: object) -> Result:
        (folder / "store.sqlite3").write_bytes(b"garbage " * 500)
        done = run(*more, *words)
        assert done.code == 0, done
        return done

    done = damaged("build", folder / "model.onnx", "-o", output, "--json", *with_page)
    for word in said:
        assert any(word in warning for warning in done.json["warnings"])
        assert done.err.count(word) == 1  # for a person besides
        assert not with_page or word in page.read_text(encoding="utf-8")
    assert json.loads((folder / "out.onnx.json").read_text())["warnings"] == done.json["warnings"]
    done = damaged("build", folder / "model.onnx", "-o", output, "--quiet")
    assert (done.out, done.err) == ("", "")
    assert len(json.loads((folder / "out.onnx.json").read_text())["warnings"]) >= len(said)
    done = damaged("plan", folder / "model.onnx", "-o", folder / "plan.json", "--quiet")
    assert (done.out, done.err) == ("", "")
    made = json.loads((folder / "plan.json").read_text())["warnings"]
    assert all(any(word in warning for warning in made) for word in said)


def test_quiet_says_no_warning_of_python(folder: Path) -> None:
    store = folder / "store.sqlite3"
    words = [sys.executable, "-m", "tdc_deploy.cli.main", "doctor", "--store", str(store)]
    for flags, lines in (([], 1), (["--quiet"], 0)):
        store.write_bytes(b"garbage " * 500)
        done = subprocess.run([*words, *flags], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0
        assert done.stderr.count("warning: the latency store") == lines


@pytest.mark.parametrize("part", [b"PK\x01\x02", b"PK\x03\x04"], ids=["directory", "array"])
def test_a_damaged_archive_is_said(run: Run, folder: Path, part: bytes) -> None:
    data = save_npz(folder / "data.npz", image=images(20, seed=3))
    # The mark in front of each entry of the archive's directory, or of each array.
    data.write_bytes(data.read_bytes().replace(part, b"PK\xff\xff"))
    words = ["--calib", data, "-o", folder / "out.onnx", "--max-error", 1]
    done = run("build", folder / "model.onnx", *words)
    assert done.code == 2, done
    assert "data.npz cannot be read" in done.err
    assert not (folder / "out.onnx").exists()


@pytest.mark.parametrize("flags", [["--no-data-aware"], ["--preset", "imagenet"]])
def test_what_is_said_of_data_needs_data(run: Run, folder: Path, flags: list[str]) -> None:
    words = ["-o", folder / "out.onnx", "--inputs", folder / "inputs.npz"]
    done = run("build", folder / "model.onnx", *words, *flags)
    assert done.code == 2
    assert "no calibration data" in done.err
    assert not (folder / "out.onnx").exists()
