"""Whether TensorRT takes a plugin library: run in a process of its own, which may crash.

    python -m tdc_deploy.plugin.registry LIBRARY

prints a JSON object: "tensorrt", its version, and "creators", the tdc creators that registering added.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

MODULES = ("tensorrt", "tensorrt_lean", "tensorrt_lean_bindings")
CREATORS = ("TuckerConv", "TuckerConvAdd")
TIMEOUT_S = 120


@dataclass(frozen=True)
class Registration:
    """What TensorRT made of the library; `problem` is empty if it found every creator."""

    tensorrt: str
    creators: tuple[str, ...]
    problem: str = ""


def tensorrt_module() -> str | None:
    """The TensorRT package that this Python can import, if any; the lean runtime has a registry too."""
    return next((name for name in MODULES if find_spec(name) is not None), None)


def try_registration(library: Path) -> Registration | None:
    """Register the library in another process; None where no TensorRT is installed."""
    if tensorrt_module() is None:
        return None
    command = [sys.executable, "-m", __name__, str(library.resolve())]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Registration("", (), f"no answer in {TIMEOUT_S} s")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return Registration("", (), f"exit code {done.returncode}: {last}")
    found = json.loads(done.stdout.splitlines()[-1])
    creators = tuple(found["creators"])
    missing = [name for name in CREATORS if name not in creators]
    problem = f"no creator of {', '.join(missing)}" if missing else ""
    return Registration(found["tensorrt"], creators, problem)


def _register(library: str) -> dict[str, object]:
    name = tensorrt_module()
    assert name is not None
    tensorrt = import_module(name)
    registry = tensorrt.get_plugin_registry()
    if registry.load_library(library) is None:
        raise SystemExit(f"TensorRT {tensorrt.__version__} did not load {library}")
    creators = (
        registry.all_creators if hasattr(registry, "all_creators") else registry.plugin_creator_list
    )
    names = sorted({creator.name for creator in creators} & set(CREATORS))
    return {"tensorrt": tensorrt.__version__, "creators": names}


if __name__ == "__main__":
    print(json.dumps(_register(sys.argv[1])))  # noqa: T201
