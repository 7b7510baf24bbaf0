"""README's commands and code are run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: README's model.onnx and samples.npz are the demo's."""
    path = tmp_path_factory.mktemp("readme")
    shutil.copy(ROOT / "train" / "demo" / "digits.onnx", path / "model.onnx")
    with np.load(ROOT / "train" / "demo" / "heldout.npz") as heldout:
        np.savez(path / "samples.npz", image=heldout["image"][:64], labels=heldout["labels"][:64])
    return path


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "TDC_DEPLOY_CACHE": str(folder / "cache")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="README's commands are for a shell")
def test_shell_commands(folder: Path) -> None:
    commands = [line for block in blocks("sh") for line in block.strip().splitlines()]
    assert len(commands) >= 7
    for command in commands:
        run(["bash", "-c", command], folder)
    assert (folder / "fast.onnx").is_file()
    assert (folder / "fast.onnx.json").is_file()


def test_python_code(folder: Path) -> None:
    (code,) = blocks("python")
    assert "compressed" in run([sys.executable, "-c", code], folder)


def test_plan_in_the_text_is_a_plan() -> None:
    from tdc_deploy.plan_file import plan_from_json

    (text,) = re.findall(r'`(\{"layers".*?\})`', README)
    import json

    assert plan_from_json(json.loads(text), "README").selection


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_targets_exist(target: str) -> None:
    assert f"make {target}" in README
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_every_flag_that_is_explained_exists() -> None:
    import tdc_deploy.cli.options as options

    known = Path(options.__file__).read_text() + (ROOT / "tdc_deploy/cli/build.py").read_text()
    for flag in re.findall(r"^\| `--([a-z-]+)", README, re.MULTILINE):
        assert f"--{flag}" in known or flag.replace("-", "_") in known
