"""The loop's parts against their formulas."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from tdc_train.recipe import OptimizerSpec, ScheduleSpec
from tdc_train.training.ahead import read_ahead
from tdc_train.training.ema import Ema
from tdc_train.training.evaluate import macs, score, wilson
from tdc_train.training.log import TensorBoard, write_csv
from tdc_train.training.losses import CrossEntropy
from tdc_train.training.mixup import mixed
from tdc_train.training.norm_statistics import re_estimate
from tdc_train.training.schedule import make_optimizer, rate
from torch import nn

from tdc_deploy.errors import TdcError

# Roundings of float32 sums of few terms.
CLOSE = 1e-6


def test_cosine_rises_falls_and_ends_at_the_floor() -> None:
    spec = ScheduleSpec("cosine", warmup=2, floor=0.1)
    assert rate(spec, 1.0, 10) == 0.5
    assert rate(spec, 2.0, 10) == 1.0
    assert rate(spec, 6.0, 10) == pytest.approx(0.55, abs=1e-12)
    assert rate(spec, 10.0, 10) == pytest.approx(0.1, abs=1e-12)
    assert rate(spec, 0.0, 10) > 0


def test_steps_are_of_the_papers_kind() -> None:
    spec = ScheduleSpec("step", step=55, gamma=0.1)
    assert [rate(spec, e, 180) for e in (0, 54.9, 55, 110, 179)] == pytest.approx(
        [1, 1, 0.1, 0.01, 0.001], rel=1e-12
    )
    assert rate(ScheduleSpec("constant"), 7.5, 10) == 1.0


def test_vectors_can_be_spared_of_weight_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    spared = make_optimizer(OptimizerSpec(decay_all=False, weight_decay=0.5), model, 0.1)
    assert [group["weight_decay"] for group in spared.param_groups] == [0.5, 0.0]
    assert [len(group["params"]) for group in spared.param_groups] == [1, 3]
    both = make_optimizer(OptimizerSpec(weight_decay=0.5), model, 0.1)
    assert [group["weight_decay"] for group in both.param_groups] == [0.5, 0.5]
    adam = make_optimizer(OptimizerSpec("adamw", beta2=0.9), model, 0.1)
    assert isinstance(adam, torch.optim.AdamW)
    assert adam.param_groups[0]["betas"] == (0.9, 0.9)


def test_ema_is_its_recursion() -> None:
    model = nn.Linear(1, 1, bias=False)
    ema = Ema(model, 0.5)
    expected = model.weight.item()
    for step in range(20):
        with torch.no_grad():
            model.weight.fill_(step * 1.5)
        ema.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step * 1.5
    assert abs(ema.average["weight"].item() - expected) <= CLOSE * abs(expected)
    with ema.applied(model):
        assert model.weight.item() == ema.average["weight"].item()
    assert model.weight.item() == 19 * 1.5


def test_mixup_mixes_images_and_classes_alike() -> None:
    images = torch.rand(4, 3, 2, 2)
    mix, targets = mixed(images, torch.arange(4), 5, 0.4, np.random.default_rng(0))
    share = np.random.default_rng(0).beta(0.4, 0.4)
    assert (mix - (share * images + (1 - share) * images.flip(0))).abs().max() <= CLOSE
    assert (targets.sum(1) - 1).abs().max() <= CLOSE
    assert abs(float(targets[0, 0]) - share) <= CLOSE
    assert abs(float(targets[0, 3]) - (1 - share)) <= CLOSE


def test_cross_entropy_takes_classes_and_probabilities() -> None:
    model = nn.Flatten()
    logits = torch.randn(3, 4, 1, 1, dtype=torch.float64)
    targets = torch.tensor([0, 3, 1])
    smoothing = 0.1
    loss, out = CrossEntropy(smoothing)(model, logits, targets)
    wide = F.one_hot(targets, 4).double()
    log_share = out - out.logsumexp(1, keepdim=True)
    expected = -((wide * (1 - smoothing) + smoothing / 4) * log_share).sum(1).mean()
    assert abs(float(loss - expected)) <= 1e-12
    soft, _ = CrossEntropy(smoothing)(model, logits, wide)
    assert abs(float(soft - expected)) <= 1e-12


def test_wilsons_interval_is_the_published_one() -> None:
    # 81 of 263: (0.2553, 0.3662), R. G. Newcombe, Statistics in Medicine 1998, table I, method 3.
    low, high = wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 20)[0] == 0.0
    assert round(wilson(0, 20)[1], 4) == 0.1611
    assert wilson(29, 29)[1] == 1.0


def test_macs_of_layers_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 4x4 pixels, 8 channels of 27 each
        nn.Conv2d(8, 8, 3, padding=1, groups=4),  # 4x4 pixels, 8 channels of 18 each
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    assert macs(model, (3, 8, 8)) == 16 * 8 * 27 + 16 * 8 * 18 + 1280
    assert all(not module._forward_hooks for module in model.modules())


def test_a_score_is_the_share_and_the_mean() -> None:
    from tdc_train.data.tensors import TensorSet

    pixels = torch.randint(0, 256, (7, 3, 2, 2), dtype=torch.uint8)
    labels = torch.randint(0, 12, (7,))
    images = TensorSet(pixels, labels, (0.0,) * 3, (1.0,) * 3)
    model = nn.Flatten()
    found = score(model, images, batch=3)
    logits = pixels.double().view(7, 12) / 255
    assert found.right == int((logits.argmax(1) == labels).sum())
    assert abs(found.loss - float(F.cross_entropy(logits, labels))) <= CLOSE
    assert model.training


@pytest.mark.parametrize("depth", [0, 1, 3, 99])
def test_batches_are_read_ahead_in_order(depth: int) -> None:
    read = []

    def slowly(key: int) -> int:
        read.append(key)
        return key * key

    found = read_ahead(range(8), slowly, depth)
    assert next(found) == 0
    assert len(read) <= depth + 2
    assert list(found) == [key * key for key in range(1, 8)]
    assert read == list(range(8))


def test_an_error_of_the_reader_is_the_callers() -> None:
    def broken(_key: int) -> int:
        raise TdcError("unreadable")

    with pytest.raises(TdcError, match="unreadable"):
        list(read_ahead(range(3), broken, 2))


def test_statistics_are_measured_anew() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5), nn.BatchNorm2d(2, momentum=0.3))
    batches = [3 + 2 * torch.randn(64, 2, 4, 4, dtype=torch.float64) for _ in range(3)]
    model.double()
    re_estimate(model, batches)
    norm = model[0]
    means = torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0)
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in batches]).mean(0)
    assert (norm.running_mean - means).abs().max() <= 1e-12
    assert (norm.running_var - variances).abs().max() <= 1e-12
    # Dropout off: the second sees what inference sees, of about mean 0 and variance 1.
    assert (model.state_dict()["2.running_var"] - 1).abs().max() <= 0.05
    assert isinstance(model[2], nn.BatchNorm2d)
    assert model[2].momentum == 0.3
    assert model.training


def test_the_csv_has_all_columns_and_the_last_state(tmp_path: Path) -> None:
    write_csv(tmp_path, [{"stage": "dense", "epoch": 1, "loss": 2.0}])
    rows = [{"stage": "dense", "epoch": 1, "loss": 2.0}, {"stage": "admm", "epoch": 1, "rho": 0.1}]
    write_csv(tmp_path, rows)
    with (tmp_path / "log.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["loss"] for row in found] == ["2.0", ""]
    assert [row["rho"] for row in found] == ["", "0.1"]
    assert math.isclose(float(found[1]["epoch"]), 1)


def test_tensorboard_is_written_or_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(TdcError, match="no tensorboard"):
            TensorBoard(tmp_path, 0)
    pytest.importorskip("tensorboard")
    board = TensorBoard(tmp_path, 0)
    board.write(1, {"stage": "dense", "loss": 2.0})
    board.close()
    assert any((tmp_path / "tensorboard").iterdir())
