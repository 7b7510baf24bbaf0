"""The end-to-end benchmark as far as it goes without a GPU, and on a TensorRT that is replaced."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu_end_to_end
from benchmarks.gpu_end_to_end import entry_of, main, node_name, tdc_plan
from tdc_deploy.plan_file import check_layers, read_plan
from tdc_deploy.source import read_source
from tdc_deploy.types import Ranks
from tests.fake_tensorrt import FakeTensorRT, fill

FIRST, LAST = "layer1/layer1.0/conv1", "layer4/layer4.1/conv2"


def test_the_plan_is_the_authors_table() -> None:
    plan = tdc_plan()
    assert len(plan.layers) == 16
    first, last = (plan.layers[f"/{name}/Conv"] for name in (FIRST, LAST))
    assert first.candidate.ranks == Ranks(r_in=64, r_out=32)  # the table says [r_out, r_in]
    assert last.candidate.ranks == Ranks(r_in=192, r_out=160)
    assert node_name("layer2.0.conv2.weight") == "/layer2/layer2.0/conv2/Conv"


def test_what_is_prepared_fits_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from benchmarks import models

    small = models.resnet18(32)
    monkeypatch.setattr(gpu_end_to_end, "SIZE", 32)
    monkeypatch.setattr(models, "resnet18", lambda _: small)
    gpu_end_to_end.prepare(tmp_path, 2)
    source = read_source(tmp_path / "model.onnx")
    check_layers(read_plan(tmp_path / "plan.json"), source.plannable)
    assert np.load(tmp_path / "inputs.npz")["image"].shape == (32, 3, 32, 32)


def test_without_a_gpu_it_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    monkeypatch.setattr(gpu_end_to_end, "what_is_missing", lambda: ["an NVIDIA GPU"])
    monkeypatch.setattr(sys, "argv", ["x", "measure", str(tmp_path), "--out", str(out)])
    main()
    assert capsys.readouterr().out == "not measured; missing: an NVIDIA GPU\n"
    assert not out.exists()


def test_the_forms_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path)
    FakeTensorRT(monkeypatch, folder / "plugin.so")
    out = tmp_path / "out.json"
    gpu_end_to_end.measure(
        argparse.Namespace(
            folder=folder, precision="fp32", no_library_tactics=True, out=out, batch=1
        )
    )
    entry = json.loads(out.read_text())["entries"]["resnet18/b1/fp32"]
    assert list(entry["forms"]) == ["source", "native", "fused"]
    assert entry["shipped"] == "fused"


def test_an_entry_needs_the_sidecar_of_an_engine() -> None:
    with pytest.raises(KeyError, match="engine"):
        entry_of({})
