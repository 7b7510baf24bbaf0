"""`tdc-deploy tactics`: what it prints, and what it refuses."""

from __future__ import annotations

import shutil

import pytest

from tdc_deploy.profiling.analytical.tactics import decode
from tests.cli.conftest import Run

LAYER: list[object] = ["tactics", "--device", "H200", "--shape", "1x512x7x7", "--ranks", "192,160"]


def test_predictions_are_printed_and_said_to_be_such(run: Run) -> None:
    result = run(*LAYER, "--top", 3)
    assert result.code == 0
    assert "predicted by the analytical model, not measured" in result.out
    assert result.out.count("fused f16") == 3
    assert "constants are guesses" in result.out
    assert "…" not in result.out


def test_json_has_the_breakdown_the_attribute_and_the_constants(run: Run) -> None:
    report = run(*LAYER, "--json", "--residual", "--kernel", "3x1", "--stride", "2").json
    assert report["note"] == "predicted by the analytical model, not measured"
    assert report["shape"]["pads"] == [1, 0, 1, 0]
    assert (report["shape"]["strides"], report["shape"]["residual"]) == ([2, 2], True)
    assert (report["shape"]["c"], report["shape"]["m"]) == (512, 512)
    assert len(report["tactics"]) == len(report["attribute"]) == 16
    best = report["tactics"][0]
    assert str(decode(best["number"])) == best["name"]
    assert {"reduce", "core", "expand"} <= {stage["name"] for stage in best["stages"]}
    assert {c["origin"] for c in report["constants"]} == {"document", "guess"}


def test_precision_says_which_arithmetics_are_ranked(run: Run) -> None:
    for precision, arithmetics in (("fp16", {"f16"}), ("tf32", {"tf32", "f32"}), ("fp32", {"f32"})):
        rows = run(*LAYER, "--precision", precision, "--top", 999, "--json").json["tactics"]
        assert {decode(row["number"]).arithmetic for row in rows} == arithmetics


def test_verbose_lists_every_constant_with_its_origin(run: Run) -> None:
    result = run(*LAYER, "--verbose")
    assert "launch of a kernel in a CUDA graph: 2.2 us (guess: 2 to 3 us)" in result.out
    assert "dram_gb_s: 4800 GB/s (document: NVIDIA H200 data sheet" in result.out


def test_quiet_prints_nothing(run: Run) -> None:
    assert run(*LAYER, "--quiet").out == ""


def test_the_papers_cases_are_printed(run: Run) -> None:
    result = run("tactics", "--paper")
    assert "measured by its authors on an A100" in result.out
    assert "192,160,7x7" in result.out
    rows = run("tactics", "--paper", "--device", "H200", "--json").json
    assert [row["case"]["ms"] for row in rows] == [0.0259, 0.0181, 0.2598]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "B9000"], "unknown device 'B9000'"),
        (["--precision", "int8"], "precision is 'int8'"),
        (["--device", "T4"], "no tactic in fp16 runs this layer on T4"),
        (["--top", 0], "top is 0"),
        (["--shape", "512x7x7"], "--shape is '512x7x7'"),
        (["--shape", "1x512x7x0"], "--shape is '1x512x7x0'"),
        (["--ranks", "a,b"], "--ranks is 'a,b'"),
        (["--kernel", "3x3x3"], "--kernel is '3x3x3'"),
        (["--stride", "0"], "--stride is '0'"),
        (["--padding", "1x1x1"], "--padding is '1x1x1'"),
        (["--out-channels", 0], "impossible convolution"),
        (["--kernel", 9, "--padding", 0], "empty output"),
    ],
)
def test_mistakes_are_said(run: Run, words: list[object], message: str) -> None:
    result = run(*LAYER, *words)
    assert result.code == 2
    assert message in result.err


@pytest.mark.parametrize("missing", ["--shape", "--ranks"])
def test_shape_and_ranks_are_needed(run: Run, missing: str) -> None:
    at = LAYER.index(missing)
    result = run(*LAYER[:at], *LAYER[at + 2 :])
    assert result.code == 2
    assert f"{missing} is missing" in result.err


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU here")
def test_without_a_gpu_the_device_must_be_named(run: Run) -> None:
    result = run("tactics", *LAYER[3:])
    assert result.code == 2
    assert "--device H200" in result.err
