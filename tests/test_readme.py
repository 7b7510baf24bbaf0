"""README's commands and code are run as they stand there."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

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


def run(command: list[str], folder: Path, cache: str = "cache", **variables: str) -> str:
    environment = {**os.environ, "TDC_DEPLOY_CACHE": str(folder / cache), **variables}
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


# What a busy machine measures could leave nothing to ship but the source.
IN_FAKE_TIME = """
import pytest
from tests.fakes import FakeTime
FakeTime(pytest.MonkeyPatch())
"""


def test_python_code(folder: Path) -> None:
    (code,) = blocks("python")
    command = [sys.executable, "-c", IN_FAKE_TIME + code]
    assert "compressed" in run(command, folder, cache="fake", PYTHONPATH=str(ROOT))


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


BENCHMARK = r"python -m benchmarks\.\w+"

# Flags of other programs that README names.
OTHERS = {"--model-repository", "--http-port", "--backend-config", "--nproc-per-node"}


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words call, of the real command lines, and the words that are left for it."""
    if words[0] == "tdc-deploy":
        from tdc_deploy.cli.main import app
    else:
        from tdc_train.cli.main import app
    command, left = typer.main.get_command(app), words[1:]
    while hasattr(command, "commands") and left:
        assert left[0] in command.commands, words
        command, left = command.commands[left[0]], left[1:]
    return command, left


def flags_of(command: Any) -> set[str]:
    """Every spelling of a command's options."""
    flags = {"--help"}
    for option in command.params:
        flags |= {*option.opts, *option.secondary_opts}
    for inner in getattr(command, "commands", {}).values():
        flags |= flags_of(inner)
    return flags


def lines_of(program: str) -> list[str]:
    """The lines of README's blocks, fenced or indented, that call a program."""
    found = re.findall(rf"^(?:    )?({program}(?: .*)?)$", README, re.MULTILINE)
    return [line for line in found if "`" not in line]


def named_in_text(program: str) -> list[str]:
    """What README's sentences quote of a program's commands, perhaps over two lines."""
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    return [" ".join(said.split()) for said in re.findall(rf"`({program}(?:\s[^`]*)?)`", text)]


@pytest.mark.parametrize("line", lines_of("tdc-deploy") + lines_of("tdc-train"))
def test_every_command_is_parsed_by_its_command_line(line: str) -> None:
    command, left = command_of(shlex.split(line, comments=True))
    command.make_context(command.name, left)  # a usage error, if it does not fit


@pytest.mark.parametrize("said", named_in_text("tdc-deploy") + named_in_text("tdc-train"))
def test_every_command_that_is_named_exists(said: str) -> None:
    command, left = command_of(said.split())
    flags = {word for word in left if word.startswith("-")}
    assert flags <= flags_of(command), flags - flags_of(command)


def test_commands_are_found() -> None:
    """So that none of these tests is one of nothing."""
    assert len(lines_of("tdc-deploy")) >= 25
    assert len(lines_of("tdc-train")) >= 6
    assert len(named_in_text("tdc-deploy")) >= 8
    assert len(lines_of(BENCHMARK)) >= 4


@pytest.mark.parametrize("said", sorted({*lines_of(BENCHMARK), *named_in_text(BENCHMARK)}))
def test_every_benchmark_exists_and_knows_its_flags(said: str) -> None:
    _, _, module, *words = shlex.split(said, comments=True)
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    known = {
        argument.value
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    }
    assert known
    flags = {word for word in words if word.startswith("-")}
    assert flags <= known, flags - known


def test_every_flag_that_is_explained_is_one_of_build() -> None:
    rows = re.findall(r"^\| (`--.*?) \|", README, re.MULTILINE)
    flags = {flag for row in rows for flag in re.findall(r"--[A-Za-z0-9-]+", row)}
    assert len(flags) >= 30
    command, _ = command_of(["tdc-deploy", "build"])
    assert flags <= flags_of(command), flags - flags_of(command)


def test_every_flag_in_the_text_is_one_of_a_command() -> None:
    flags = set(re.findall(r"(?<![\w-])--[A-Za-z][A-Za-z0-9-]*", README))
    known = flags_of(command_of(["tdc-deploy"])[0]) | flags_of(command_of(["tdc-train"])[0])
    calls = [*lines_of(BENCHMARK), *named_in_text(BENCHMARK)]
    benchmarks = {flag for call in calls for flag in call.split()}
    assert flags <= known | benchmarks | OTHERS, flags - known - benchmarks - OTHERS


def test_json_and_quiet_and_verbose_are_on_every_command() -> None:
    root, _ = command_of(["tdc-deploy"])
    for command in root.commands.values():
        for inner in getattr(command, "commands", {"": command}).values():
            assert {"--json", "--quiet", "--verbose"} <= flags_of(inner), inner.name
