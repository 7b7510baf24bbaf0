"""The commands, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tdc_train.cli.main import main
from tdc_train.training import assess
from tdc_train.training.checkpoint import read_checkpoint, write_checkpoint

from tdc_deploy.errors import TdcError
from tests.cli.conftest import Result
from tests.train.tiny import TINY_DATA

Run = Callable[..., Result]

RECIPE = """
[model]
name = "tests.train.tiny:TinyNet"
[data]
options = { train = 64, val = 32, test = 32 }
[[stages]]
kind = "dense"
epochs = 2
batch = 16
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """run("fit", path, "--flag") as `tdc-train fit path --flag`."""

    def call(*words: object) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["tdc-train", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return tmp_path / "tiny.toml"


def test_fit_then_eval(run: Run, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run("fit", recipe, "-o", folder, "--set", "stages.dense.epochs=3", "--threads", 1)
    assert result.code == 0, result.err
    assert "dense" in result.out
    assert len(read_checkpoint(folder / "last.pt").rows) == 3
    found = run("eval", folder, "--json", "--trust").json
    assert found["images"] == TINY_DATA["test"]
    assert found["interval"][0] <= found["accuracy"] <= found["interval"][1]
    assert found["accuracy"] == found["right"] / found["images"]
    # 3→16 channels at 8x8, 16→16 at 4x4, the last layer.
    assert found["macs"] == 64 * 27 * 16 + 16 * 144 * 16 + 160
    shown = run("eval", folder / "stages" / "dense.pt", "--split", "val", "--trust")
    assert "95% interval" in shown.out
    assert "thousand parameters" in shown.out


def test_code_that_a_checkpoint_names_is_run_with_trust_only(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    run("fit", recipe, "-o", tmp_path / "run")
    best, proof = tmp_path / "run" / "best.pt", tmp_path / "proof"
    evil = read_checkpoint(best)
    # What anyone could write: no network, but a command.
    evil.recipe["model"] = {"name": "os:mkdir", "options": {"path": str(proof)}, "weights": None}
    write_checkpoint(tmp_path / "evil.pt", evil)
    for words in (("eval",), ("export", "-o", tmp_path / "m.onnx")):
        result = run(*words, tmp_path / "evil.pt")
        assert result.code == 2
        assert "os:mkdir" in result.err
        assert "--trust" in result.err
        assert not proof.exists()
    assert run("eval", best).code == 2
    assert run("eval", best, "--trust").code == 0


def test_export_needs_the_data_for_samples_only(
    run: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("fit", recipe, "-o", tmp_path / "run")
    best, onnx = tmp_path / "run" / "best.pt", tmp_path / "m.onnx"
    # One from before checkpoints held the shape.
    old = torch.load(best, weights_only=True)
    del old["shape"], old["classes"]
    torch.save(old, tmp_path / "old.pt")
    assert read_checkpoint(tmp_path / "old.pt").shape is None
    assert run("export", tmp_path / "old.pt", "-o", onnx, "--trust").code == 0
    onnx.unlink()

    def gone(*_args: object) -> None:
        raise TdcError("the data are gone")

    monkeypatch.setattr(assess, "make_data", gone)
    assert run("export", best, "-o", onnx, "--trust").code == 0
    assert onnx.is_file()
    for words in ((best, "--write-inputs", tmp_path / "in.npz"), (tmp_path / "old.pt",)):
        assert "the data are gone" in run("export", *words, "-o", onnx, "--trust").err


def test_export_overwrites_nothing_that_it_reads_and_writes_both_or_neither(
    run: Run, recipe: Path, tmp_path: Path
) -> None:
    run("fit", recipe, "-o", tmp_path / "run")
    best, onnx, npz = tmp_path / "run" / "best.pt", tmp_path / "m.onnx", tmp_path / "samples.npz"
    named = tmp_path / "checkpoint.onnx"
    named.write_bytes(best.read_bytes())
    npz.write_bytes(b"the user's")
    words = ("export", best, "--trust")
    # In all other commands --inputs is read.
    assert run(*words, "-o", onnx, "--inputs", npz).code == 2
    refused = {
        "ends in .onnx": ("-o", best),
        "ends in .npz": ("-o", onnx, "--write-inputs", best),
        "does not exist": ("-o", onnx, "--write-inputs", tmp_path / "none" / "in.npz"),
    }
    for said, more in refused.items():
        result = run(*words, *more)
        assert result.code == 2
        assert said in result.err
    result = run("export", named, "--trust", "-o", named)
    assert result.code == 2
    assert "would be overwritten" in result.err
    assert named.read_bytes() == best.read_bytes()
    # An export that fails leaves the samples that were there.
    assert run(*words, "-o", onnx, "--write-inputs", npz, "--opset", 9).code == 2
    assert npz.read_bytes() == b"the user's"
    assert not onnx.exists()
    assert run(*words, "-o", onnx, "--write-inputs", npz).code == 0
    with np.load(npz) as arrays:
        assert set(arrays) == {"image", "labels"}
    assert onnx.is_file()


def test_ranks_do_not_replace_the_checkpoint(run: Run, recipe: Path, tmp_path: Path) -> None:
    run("fit", recipe, "-o", tmp_path / "run")
    best = tmp_path / "run" / "best.pt"
    before = best.read_bytes()
    result = run("ranks", tmp_path / "run", "--trust", "-o", best)
    assert result.code == 2
    assert "would be overwritten" in result.err
    assert best.read_bytes() == before


def test_fit_json_is_the_log(run: Run, recipe: Path, tmp_path: Path) -> None:
    rows = run("fit", recipe, "-o", tmp_path / "run", "--json").json["epochs"]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows == read_checkpoint(tmp_path / "run" / "last.pt").rows


def test_quiet_prints_nothing(run: Run, recipe: Path, tmp_path: Path) -> None:
    result = run("fit", recipe, "-o", tmp_path / "run", "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_resume_needs_the_flag(run: Run, recipe: Path, tmp_path: Path) -> None:
    run("fit", recipe, "-o", tmp_path / "run")
    again = run("fit", recipe, "-o", tmp_path / "run")
    assert again.code == 2
    assert "--resume" in again.err
    assert run("fit", recipe, "-o", tmp_path / "run", "--resume").code == 0


def test_errors_are_json_too(run: Run, tmp_path: Path) -> None:
    result = run("eval", tmp_path, "--json")
    assert result.code == 2
    assert "best.pt" in result.json["error"]["received"]
    assert run("eval", tmp_path / "none.pt").code == 2
    assert "split 'all'" in run("eval", tmp_path, "--split", "all").err


def test_recipes_are_listed_and_printed(run: Run) -> None:
    listed = run("recipes", "--json").json
    assert {"shapes_resnet20", "imagenet_resnet18_admm"} <= set(listed)
    assert "[[stages]]" in run("recipes", "shapes_resnet20").out
    assert run("recipes", "nothing").code == 2


def test_help_needs_no_torch(run: Run) -> None:
    result = run("fit", "--help")
    assert result.code == 0
    assert "--resume" in result.out


def test_json_and_quiet_are_on_every_command(run: Run) -> None:
    for command in ("fit", "eval", "export", "recipes"):
        out = run(command, "--help").out
        assert "--json" in out
        assert "--quiet" in out
