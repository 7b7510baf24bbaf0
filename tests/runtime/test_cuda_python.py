"""What is asked of cuda-python, held against NVIDIA's own packages, which pip fetches."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import tdc_deploy
from tests.nvidia_packages import fetched, python_310

ROOT = Path(tdc_deploy.__file__).parents[1]
CALL = re.compile(r'"(cu[A-Z]\w+)"')
FLAG = re.compile(r"\b(CU_[A-Z_]+)\b")

DESCRIBE = """
import sys
sys.path[:0] = sys.argv[1:]
from tdc_deploy.runtime.libraries import cuda_driver
driver = cuda_driver()
print(driver.__name__)
for name, value in vars(driver).items():
    print(name, (value.__doc__ or "").strip().splitlines()[:1])
    print(*getattr(value, "__members__", ()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "version", "module"),
    [
        ("cuda-python", "11.8.3", "cuda.cuda"),
        ("cuda-bindings", "11.8.7", "cuda.bindings.driver"),
        ("cuda-python", "12.3.0", "cuda.cuda"),
        ("cuda-bindings", "13.0.3", "cuda.bindings.driver"),
    ],
)
def test_every_call_is_there(package: str, version: str, module: str, tmp_path: Path) -> None:
    python = python_310()
    site = fetched(package, version, python, tmp_path)
    done = subprocess.run(
        [python, "-c", DESCRIBE, str(site), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(module + "\n")
    source = (ROOT / "tdc_deploy" / "runtime" / "cuda.py").read_text()
    of_cuda_11 = version.startswith("11.")
    called = set(CALL.findall(source)) - (set() if of_cuda_11 else {"cuGraphInstantiateWithFlags"})
    assert len(called) >= 20
    there = set(re.findall(r"\w+", done.stdout))
    assert sorted((called | set(FLAG.findall(source))) - there) == []
    # Which of the two names takes flags.
    name = "cuGraphInstantiateWithFlags" if of_cuda_11 else "cuGraphInstantiate"
    assert f"{name}(hGraph, unsigned long long flags)" in done.stdout
    assert ("cuGraphInstantiateWithFlags" in there) == of_cuda_11
