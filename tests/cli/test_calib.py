"""--calib of build and plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.builders import images, save_npz
from tests.cli.conftest import Run

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
