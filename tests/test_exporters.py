"""Models as torch's two exporters write them; skipped where torch is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import tdc_deploy
from tdc_deploy.source import read_source
from tests.fakes import FakeTime

torch = pytest.importorskip("torch", reason="torch is not installed")

SIZE = 32


def exported(folder: Path, exporter: Any) -> Path:
    """A narrow ResNet-18 for 32x32 images."""
    from benchmarks.models import export, resnet18

    path = folder / "resnet18.onnx"
    export(resnet18(SIZE, width=16), path, (1, 3, SIZE, SIZE), exporter)
    return path


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_every_convolution_is_found_and_the_chains_fuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exporter: str
) -> None:
    from benchmarks.models import image_like

    path = exported(tmp_path, exporter)
    source = read_source(path)
    assert len(source.plannable) == 20
    assert not any(node.op == "BatchNormalization" for node in source.network.graph.nodes)

    FakeTime(monkeypatch)
    np.savez(tmp_path / "in.npz", image=image_like(16, 3, SIZE, 3))
    artifact = tdc_deploy.build(
        path,
        tmp_path / "out.onnx",
        inputs=tmp_path / "in.npz",
        latency_budget=0.5,
        max_error=2.0,
    )
    assert artifact.decision == "compressed"
    # FakeTime counts arithmetic, so the budget is met by arithmetic.
    assert artifact.ratio.value <= 0.5
    built = onnx.load(str(tmp_path / "out.onnx"))
    fused = [node.op_type for node in built.graph.node if node.domain == "tdc"]
    assert {"TuckerConv", "TuckerConvAdd"} == set(fused)
    # Every Relu behind a chain, and the Add of every block that ends in one, are inside.
    assert sum(node.op_type == "Relu" for node in built.graph.node) <= 17 - len(fused)
