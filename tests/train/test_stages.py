"""Whole runs: dense, ADMM, decomposed, fine-tuned, exported."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tdc_train.admm")

import onnxruntime
from tdc_train.admm import Admm
from tdc_train.data import registry
from tdc_train.data.shapes import generate
from tdc_train.layers import TuckerConv2d
from tdc_train.projections import TuckerProjection
from tdc_train.recipe import StageSpec
from tdc_train.training import stages
from tdc_train.training.assess import write_onnx
from tdc_train.training.checkpoint import read_checkpoint
from tdc_train.training.rebuild import rebuilt
from tdc_train.training.run import fit
from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.inspection import inspect_model
from tdc_deploy.progress import silent
from tdc_deploy.types import Ranks
from tests.train.test_resume import content, killed_fit, same
from tests.train.tiny import tiny

RANKS = {"layers": {"conv2": {"form": "tucker2", "r_in": 8, "r_out": 8}}}
RECIPE = tiny(
    {"kind": "dense", "epochs": 1},
    {"kind": "admm", "ranks": RANKS, "admm": {"rho": 0.1}},
    {"kind": "decompose", "init": {"images": 64}},
    {"kind": "finetune", "epochs": 1},
)


@pytest.fixture(scope="module", autouse=True)
def _generated_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "generate", cache(generate))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("stages") / "run"
    fit(RECIPE, path)
    return path


def test_each_stage_leaves_its_model(folder: Path) -> None:
    rows = read_checkpoint(folder / "last.pt").rows
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("dense", 1),
        ("admm", 1),
        ("admm", 2),
        ("decompose", 1),
        ("finetune", 1),
    ]
    assert rows[2]["admm_primal"] > 0
    # Relative to ‖W‖, and two epochs are too few to come near.
    assert 0 < rows[2]["admm_final"] < 2
    kinds = {}
    for name in ("dense", "admm", "decompose", "finetune"):
        model = rebuilt(read_checkpoint(folder / "stages" / f"{name}.pt"), trust=True)
        kinds[name] = isinstance(model.get_submodule("conv2"), TuckerConv2d)
    assert kinds == {"dense": False, "admm": False, "decompose": True, "finetune": True}


@pytest.mark.parametrize("call", [9, 17, 21, 24])
def test_killed_and_resumed_it_gives_the_same(folder: Path, tmp_path: Path, call: int) -> None:
    killed = tmp_path / "run"
    assert killed_fit(killed, RECIPE, call, Path, "replace") == signal.SIGKILL
    fit(RECIPE, killed, resume=True)
    assert same(content(killed), content(folder))


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_what_is_exported_is_the_model(folder: Path, tmp_path: Path, exporter: str) -> None:
    path, samples = tmp_path / "model.onnx", tmp_path / "samples.npz"
    write_onnx(folder, path, exporter=exporter, inputs=samples, samples=8, batch=0, trust=True)
    arrays = np.load(samples)
    assert arrays["image"].shape == (8, 3, 32, 32)
    found = onnxruntime.InferenceSession(str(path)).run(None, {"image": arrays["image"]})[0]
    model = rebuilt(read_checkpoint(folder / "best.pt"), trust=True).eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(arrays["image"])).numpy()
    # float32 sums in another order, BatchNorm folded.
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert inspect_model(path, progress=silent).chains == 1


def test_what_admm_reports_is_of_the_weights_that_are_kept(tmp_path: Path) -> None:
    dense = {"kind": "dense", "epochs": 1}
    layers = {
        **RANKS["layers"],
        # All of its channels: this one is in its set wherever it is.
        "conv1": {"form": "tucker2", "r_in": 3, "r_out": 16},
    }
    # An average that is far behind.
    admm = {"kind": "admm", "epochs": 1, "ema": 0.9, "ranks": {"layers": layers}}
    run = tmp_path / "run"
    result = fit(tiny(dense, {**admm, "admm": {"rho": 1.0}}), run)
    row = result.rows[-1]
    start = read_checkpoint(run / "stages" / "dense.pt").model
    kept = read_checkpoint(run / "stages" / "admm.pt").model
    # One epoch: Z is the projection of the weights at its start.
    z = TuckerProjection(Ranks(8, 8))(start["conv2.weight"])
    apart = (kept["conv2.weight"] - z).norm()
    energy = sum(kept[f"{name}.weight"].square().sum() for name in layers).sqrt()
    other = (kept["conv1.weight"] - start["conv1.weight"]).norm()
    assert row["admm_final"] == pytest.approx(float(torch.hypot(apart, other) / energy), rel=1e-4)
    assert row["admm_worst"] == pytest.approx(float(apart / kept["conv2.weight"].norm()), rel=1e-4)
    assert row["admm_worst_layer"] == "conv2"


def test_one_layer_outside_its_set_is_said() -> None:
    large, small = (nn.Parameter(torch.randn(8, 8, 3, 3)) for _ in range(2))
    with torch.no_grad():
        small.mul_(1e-3)
        large.copy_(TuckerProjection(Ranks(2, 2))(large))
    sets = {name: TuckerProjection(Ranks(2, 2)) for name in ("large", "small")}
    admm = Admm({"large": large, "small": small}, sets, rho=1.0)
    warnings: list[str] = []
    found = stages.admm_end(admm, warnings.append)
    assert found["admm_final"] < 0.1 < found["admm_worst"]
    assert found["admm_worst_layer"] == "small"
    (warning,) = warnings
    assert "layer small" in warning


@pytest.mark.parametrize(
    ("flags", "amp", "warned"),
    [
        ("avx2 fma", True, True),
        ("avx2 fma", False, False),
        ("avx2 avx512f avx512_bf16", True, False),
        ("asimd bf16", True, False),
        ("", True, False),  # Nothing is known.
    ],
)
def test_half_precision_that_is_emulated_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, amp: bool, warned: bool
) -> None:
    monkeypatch.setattr(stages, "flags", lambda: set(flags.split()))
    warnings: list[str] = []
    stages.check_amp(StageSpec("dense", "one", amp=amp), torch.device("cpu"), warnings.append)
    stages.check_amp(StageSpec("dense", "one", amp=amp), torch.device("cuda"), warnings.append)
    assert len(warnings) == warned
    recipe = tiny({"kind": "dense", "epochs": 1, "amp": amp})
    fit(recipe, tmp_path / "run", warn=warnings.append, device="cpu")
    assert len(warnings) == 2 * warned
    assert all("stage 'one'" in w or "stage 'dense'" in w for w in warnings)


@pytest.mark.parametrize("lr", [1e-3, 1e3])
def test_slices_are_logged(tmp_path: Path, lr: float) -> None:
    optimizer = {"name": "adamw", "lr": lr, "weight_decay": 0.0}
    slices = {"kind": "slices", "distill": {"teacher": "dense"}, "optimizer": optimizer}
    decompose = {"kind": "decompose", "ranks": RANKS, "init": {"images": 64}}
    recipe = tiny({"kind": "dense", "epochs": 1}, decompose, {**slices, "init": {"images": 64}})
    warnings: list[str] = []
    row = fit(recipe, tmp_path / "run", warn=warnings.append).rows[-1]
    if lr < 1:
        assert row["slices_after"] < row["slices_before"]
        assert row["slices_put_back"] == 0
        assert not warnings
    else:
        assert row["slices_after"] == row["slices_before"]
        assert row["slices_put_back"] == 1
        assert "1 of 1 slices" in warnings[0]
        assert "conv2" in warnings[0]


def test_a_rule_gives_ranks_in_steps(tmp_path: Path) -> None:
    rule = {"ratio": 0.5, "step": 16, "min_channels": 32}
    recipe = tiny(
        {"kind": "decompose", "ranks": rule, "init": {"images": 16}},
        model={"name": "resnet20"},
    )
    fit(recipe, tmp_path / "run")
    plan = read_checkpoint(tmp_path / "run" / "last.pt").plan
    assert plan is not None
    ranks = {name: (c["r_in"], c["r_out"]) for name, c in plan["layers"].items()}
    # 16-channel layers stay.
    assert ranks["layer2.0.conv2"] == (16, 16)
    assert ranks["layer3.0.conv1"] == (16, 32)
    assert ranks["layer3.2.conv2"] == (32, 32)
    assert len(ranks) == 5 + 6


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({"layers": {"conv3": {"form": "tucker2", "r_in": 8, "r_out": 8}}}, "conv3"),
        ({"layers": {"conv2": {"form": "tucker2", "r_in": 17, "r_out": 8}}}, "r_in 17"),
        ({"ratio": 0.5, "min_channels": 64}, "decompose no layer"),
    ],
)
def test_ranks_that_do_not_fit_are_said_before_training(
    tmp_path: Path, ranks: dict[str, Any], message: str
) -> None:
    recipe = tiny({"kind": "dense"}, {"kind": "decompose", "ranks": ranks})
    with pytest.raises(TdcError, match=message):
        fit(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_the_checkpoints_plan_is_one_of_tdc_deploys(folder: Path, tmp_path: Path) -> None:
    from tdc_deploy.plan_file import read_plan

    plan = read_checkpoint(folder / "best.pt").plan
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert list(read_plan(tmp_path / "plan.json").selection) == ["conv2"]
