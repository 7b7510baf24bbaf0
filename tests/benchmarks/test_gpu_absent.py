"""The GPU benchmarks where there is no GPU, with or without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_gpu_it_says_so_and_predicts() -> None:
    done = run("benchmarks.gpu_kernels", "--model", "resnet18", "--model", "cores")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "no GPU: not measured"
    assert "predictions" in lines[1]
    # 8 layers at 3 batches in 3 precisions, 18 cores.
    assert sum("/b" in line for line in lines) == 8 * 9 + 18


def test_a_gpu_that_nobody_knows() -> None:
    done = run("benchmarks.gpu_kernels", "--device", "Voodoo")
    assert done.returncode == 1
    assert "Voodoo" in done.stderr and "Traceback" not in done.stderr


def test_without_a_gpu_nothing_is_checked() -> None:
    done = run("benchmarks.gpu_check")
    assert (done.returncode, done.stdout) == (0, "no GPU: nothing was checked\n")
