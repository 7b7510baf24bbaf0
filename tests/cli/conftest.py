"""Run the command line in this process, and a folder with a model and inputs to run it on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdc_deploy.cli.main import main
from tests.builders import images, save_model, save_npz, small_cnn
from tests.fakes import FakeTime


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """run("build", path, "--flag") as `tdc-deploy build path --flag`."""

    def call(*words: object) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["tdc-deploy", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.onnx and inputs.npz, where time follows arithmetic."""
    FakeTime(monkeypatch)
    save_model(small_cnn(), tmp_path / "model.onnx")
    labels = np.arange(16) % 10
    save_npz(tmp_path / "inputs.npz", image=images(16), labels=labels)
    return tmp_path
