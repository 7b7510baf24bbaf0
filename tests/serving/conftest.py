"""Artifacts to serve: models, and engines that are bytes with a sidecar."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tdc_deploy.files import files_sha256
from tdc_deploy.sidecar import FORMAT, VERSION, sidecar_path
from tests.builders import save_model, small_cnn

MakeEngine = Callable[..., Path]

IMAGE = {
    "name": "image",
    "dtype": "float32",
    "min": [1, 3, 32, 32],
    "opt": [4, 3, 32, 32],
    "max": [16, 3, 32, 32],
}
LOGITS = {"name": "logits", "dtype": "float32", "shape": [-1, 10]}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small CNN of any batch."""
    return save_model(small_cnn(batch="N"), tmp_path / "model.onnx")


@pytest.fixture
def engine(tmp_path: Path) -> MakeEngine:
    """engine("a.engine", plugin={...}) writes a file that stands for an engine, and its sidecar."""

    def make(name: str = "model.engine", **changes: Any) -> Path:
        path = tmp_path / name
        path.write_bytes(f"engine {name}".encode())
        sidecar = {
            "format": FORMAT,
            "version": VERSION,
            "inputs": [IMAGE],
            "outputs": [LOGITS],
            "backend": {"backend": "tensorrt", "version": "10.9.0.34"},
            "plugin": None,
            "artifact": {"file": name, "sha256": files_sha256([path])},
        }
        sidecar_path(path).write_text(json.dumps(sidecar | changes))
        return path

    return make
