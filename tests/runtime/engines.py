"""An engine's sidecar and inputs, and whether a session freed all that it made."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.sidecar import FORMAT, VERSION
from tests.runtime.fake_gpu import FakeGpu


def batch(rows: int, first: float = 0) -> NDArray[np.float32]:
    return np.arange(first, first + rows * 3, dtype=np.float32).reshape(rows, 3)


def write_sidecar(
    engine: Path,
    *,
    version: str = "10.3.0",
    capability: str = "9.0",
    version_compatible: bool = False,
    hardware: str = "none",
    **content: Any,
) -> None:
    """As tdc_deploy.engine_sidecar does; a test there holds the two together."""
    described = {
        "format": FORMAT,
        "version": VERSION,
        "artifact": {"sha256": hashlib.sha256(engine.read_bytes()).hexdigest()},
        "backend": {"version": version, "compute_capability": capability},
        "engine": {
            "version_compatible": version_compatible,
            "hardware_compatibility_level": hardware,
        },
        "plugin": None,
        **content,
    }
    engine.with_name(engine.name + ".json").write_text(json.dumps(described))


def eventually(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.001)
    return true()


def all_freed(gpu: FakeGpu) -> bool:
    allocated = [entry[1] for entry in gpu.log if entry[0] == "allocate"]
    return sorted(allocated) == sorted(gpu.freed) and not any(
        count for kind, count in gpu.alive.items() if kind != "graph"
    )
