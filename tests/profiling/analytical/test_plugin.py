"""The Python side says of every tactic what the plugin's C++ says."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tdc_deploy.plugin.sources import source_root
from tdc_deploy.profiling.analytical.chips import DEVICES
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.model import is_legal, shared_bytes, workspace
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.analytical.tactics import Tactic, all_tactics

PROGRAM = Path(__file__).with_name("tactics_of_plugin.cpp")
COMPILER = shutil.which("c++") or shutil.which("g++")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")

Question = tuple[Tactic, TuckerShape, Device]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, with the plugin's host side compiled in."""
    assert COMPILER is not None
    program = tmp_path_factory.mktemp("plugin") / "tactics"
    root = source_root() / "plugins"
    sources = [PROGRAM, *(root / "kernels").glob("*.cpp")]
    include = [f"-I{root / 'include'}", f"-I{root}"]
    command = [COMPILER, "-std=c++17", "-DTDC_EMULATED", *include, *map(str, sources)]
    done = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def ask(plugin: Path, questions: Sequence[Question]) -> tuple[list[str], list[str]]:
    """The lines that list the tactics, and the answers."""
    lines = "\n".join(" ".join(map(str, line(*question))) for question in questions)
    done = subprocess.run([plugin], input=lines, capture_output=True, text=True, check=True)
    tactics, _, answers = done.stdout.partition("\n\n")
    return tactics.splitlines(), answers.splitlines()


def line(tactic: Tactic, shape: TuckerShape, device: Device) -> list[int]:
    limit = device.architecture.shared_bytes_per_block
    sizes = [shape.n, shape.h, shape.w, shape.c, *shape.out_hw, shape.m, shape.r_in, shape.r_out]
    window = [*shape.kernel, *shape.strides, *shape.pads[:2], *shape.dilations]
    return [tactic.number, device.compute_capability, limit, *sizes, *window]


def with_shared_bytes(device: Device, count: int) -> Device:
    architecture = replace(device.architecture, shared_bytes_per_block=count)
    return replace(device, architecture=architecture)


def drawn_shapes(count: int) -> list[TuckerShape]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        kernel = (int(rng.choice([1, 3, 5, 7])), int(rng.choice([1, 3, 5, 7])))
        strides = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        dilations = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        n, c, m = (int(2 ** rng.uniform(0, 10)) for _ in range(3))
        h, w = (int(size) for size in rng.integers(1, 60, 2))
        r_in, r_out = (8 * int(2 ** rng.uniform(0, 6)) for _ in range(2))
        found.append(
            TuckerShape(
                *(n, h, w, c, m, r_in, r_out, kernel, strides, (6, 6, 6, 6), dilations),
                residual=False,
            )
        )
    return found


def test_the_tactics_are_the_plugins(plugin: Path) -> None:
    listed, _ = ask(plugin, [])
    assert listed == [f"{tactic.number} {tactic}" for tactic in all_tactics()]


def test_legality_and_workspace_are_the_plugins(plugin: Path) -> None:
    questions = [
        (tactic, shape, device)
        for shape in drawn_shapes(40)
        for device in DEVICES
        for tactic in all_tactics()
    ]
    _, answers = ask(plugin, questions)
    mine = [
        f"{int(is_legal(*question))} {padded_workspace(*question[:2])}" for question in questions
    ]
    different = [q for q, a, b in zip(questions, answers, mine, strict=True) if a != b]
    assert not different, f"{len(different)}, the first: {different[0]}"
    assert 0 < sum(answer.startswith("1") for answer in answers) < len(answers)


def test_shared_memory_is_the_plugins_to_the_byte(plugin: Path) -> None:
    """A device with just enough shared memory can run a tactic, one with a byte less cannot."""
    h200 = next(device for device in DEVICES if device.name == "H200")
    pairs = [(tactic, shape) for shape in drawn_shapes(40) for tactic in all_tactics()]
    enough = [(t, s, with_shared_bytes(h200, shared_bytes(t, s))) for t, s in pairs]
    short = [(t, s, with_shared_bytes(h200, shared_bytes(t, s) - 1)) for t, s in pairs]
    _, answers = ask(plugin, [*enough, *short])
    for (tactic, shape, device), a, b in zip(
        enough, answers[: len(pairs)], answers[len(pairs) :], strict=True
    ):
        assert a.startswith(str(int(is_legal(tactic, shape, device)))), (tactic, shape)
        assert b.startswith("0"), (tactic, shape)


def padded_workspace(tactic: Tactic, shape: TuckerShape) -> int:
    """T1 and T2 of the unfused family begin at multiples of 256 bytes."""
    tensors = workspace(tactic, shape)
    if tactic.family == "channel-first":
        return sum(tensors)
    return sum(math.ceil(size / 256) * 256 for size in tensors)
