"""Training itself: what a step does, what stops it, what it leaves."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from tdc_train.data import registry
from tdc_train.data.shapes import generate
from tdc_train.data.tensors import TensorSet
from tdc_train.recipe import OptimizerSpec, ScheduleSpec, StageSpec
from tdc_train.training.checkpoint import read_checkpoint
from tdc_train.training.distributed import World
from tdc_train.training.loop import Method, Trainer
from tdc_train.training.losses import CrossEntropy
from tdc_train.training.order import Moment, epoch_batches
from tdc_train.training.rebuild import rebuilt
from tdc_train.training.run import fit
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tests.train.tiny import TINY_DATA, TinyNet, tiny

MOMENT = Moment(seed=0, stage=0, epoch=0)


@pytest.fixture(scope="module", autouse=True)
def _generated_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "generate", cache(generate))
        yield


def pixels(count: int) -> TensorSet:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    return TensorSet(images, torch.randint(0, 10, (count,)), (0.5,) * 3, (0.25,) * 3)


class Pull:
    """A regulariser: half the squared distance of a weight to a number."""

    def __init__(self, weight: nn.Parameter) -> None:
        self.weight = weight
        self.epochs = 0

    def start_epoch(self) -> dict[str, float]:
        self.epochs += 1
        return {"pulled": float(self.epochs)}

    def penalty(self) -> Tensor:
        return 0.5 * (self.weight - 3.0).square().sum()

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]


def watch(_done: int, _steps: int) -> None:
    """Nobody looks."""


def test_an_epoch_is_the_textbooks_sgd_with_momentum() -> None:
    torch.manual_seed(0)
    model = TinyNet("group", dropout=0.0).double()
    twin = TinyNet("group", dropout=0.0).double()
    twin.load_state_dict(model.state_dict())
    images = pixels(40)
    spec = StageSpec(
        "dense",
        epochs=2,
        batch=8,
        optimizer=OptimizerSpec(lr=0.1, momentum=0.9, weight_decay=0.01),
        schedule=ScheduleSpec("cosine"),
        label_smoothing=0.1,
        clip=0.5,
        channels_last=False,
    )

    class AsDouble:
        def __len__(self) -> int:
            return len(images)

        def batch(self, indices: Tensor, draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
            found, labels = images.batch(indices, draws)
            return found.double(), labels

    pull = Pull(model.fc.bias)
    trainer = Trainer(model, spec, Method(CrossEntropy(0.1), pull), AsDouble(), 10, World())
    # The loop adds up loss and penalty in float32 at the end: the gradients pass through that.
    figures = trainer.epoch(MOMENT, watch)

    velocity = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    losses = []
    for i, (indices, _) in enumerate(epoch_batches(MOMENT, 40, 8, 0, 1)):
        x, y = AsDouble().batch(indices)
        loss = F.cross_entropy(twin(x), y, label_smoothing=0.1)
        losses.append(float(loss.detach()))
        total = loss + 0.5 * (twin.fc.bias - 3.0).square().sum()
        gradients = torch.autograd.grad(total, list(twin.parameters()))
        norm = sum(float(g.square().sum()) for g in gradients) ** 0.5
        rate = 0.1 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (i / 5) / 2)).item())
        with torch.no_grad():
            for (name, p), g in zip(twin.named_parameters(), gradients, strict=True):
                step = g * min(1.0, 0.5 / norm) + 0.01 * p
                velocity[name] = 0.9 * velocity[name] + step
                p.sub_(rate * velocity[name])
    # clip_grad_norm_ adds 1e-6 to the norm, and the rate above has a float32 cosine: some 1e-6 each.
    for (name, p), (_, q) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert float((p - q).detach().abs().max()) <= 1e-5, name
    assert abs(figures["loss"] - sum(losses) / 5) <= 1e-5
    assert figures["pulled"] == 1.0
    assert figures["penalty"] > 0


def test_training_learns(tmp_path: Path) -> None:
    recipe = tiny(
        {"kind": "dense", "epochs": 10},
        model={"name": "tests.train.tiny:TinyNet", "options": {"dropout": 0.0, "channels": 32}},
        data={"name": "digits", "options": {"val": 700, "test": 500}},
    )
    pytest.importorskip("sklearn")
    result = fit(recipe, tmp_path / "run")
    # Chance is 0.1.
    assert result.accuracy >= 0.6
    best = read_checkpoint(tmp_path / "run" / "best.pt")
    assert best.figures["val_accuracy"] == max(row["val_accuracy"] for row in result.rows)


def test_amp_trains_in_bfloat16_and_keeps_float32_weights() -> None:
    seen = []

    class Spy(CrossEntropy):
        def __call__(self, model: nn.Module, images: Tensor, targets: Tensor) -> Any:
            loss, logits = super().__call__(model, images, targets)
            seen.append(logits.dtype)
            return loss, logits

    model = TinyNet()
    spec = StageSpec("dense", batch=8, amp=True)
    Trainer(model, spec, Method(Spy()), pixels(16), 10, World()).epoch(MOMENT, watch)
    assert seen == [torch.bfloat16] * 2
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recipe = tiny({"kind": "dense"}, {"kind": "finetune", "optimizer": {"lr": 1e30}})
    with pytest.raises(TdcError, match="NaN or infinite in epoch 1") as caught:
        fit(recipe, folder)
    assert "last good checkpoint" in caught.value.fix
    last = read_checkpoint(folder / "last.pt")
    assert (last.stage, last.epoch, len(last.rows)) == (1, 0, 2)
    assert all(torch.isfinite(t).all() for t in last.model.values())
    assert (folder / "stages" / "dense.pt").is_file()
    with (folder / "log.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2


def test_without_a_checkpoint_none_is_promised(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="NaN or infinite in epoch 1") as caught:
        fit(tiny({"kind": "dense", "optimizer": {"lr": 1e30}}), tmp_path / "run")
    assert "checkpoint" not in caught.value.fix


def test_a_weight_that_became_nan_in_the_last_step_is_seen() -> None:
    class Poison(Pull):
        def penalty(self) -> Tensor:
            self.weight.register_hook(lambda g: g * float("nan"))
            return super().penalty()

    model = TinyNet()
    spec = StageSpec("dense", batch=16)
    method = Method(CrossEntropy(), Poison(model.fc.bias))
    trainer = Trainer(model, spec, method, pixels(16), 10, World())
    with pytest.raises(TdcError, match="a weight became NaN"):
        trainer.epoch(MOMENT, watch)


def test_the_moving_average_is_what_is_kept(tmp_path: Path) -> None:
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    fit(tiny({"kind": "dense"}), plain)
    fit(tiny({"kind": "dense", "ema": 0.8}), averaged)
    a, b = (read_checkpoint(folder / "last.pt").model["fc.weight"] for folder in (plain, averaged))
    assert not torch.equal(a, b)
    # The training itself is the same: its weights after the first epoch.
    states = [read_checkpoint(f / "previous.pt").training for f in (plain, averaged)]
    assert states[0] is not None
    assert states[1] is not None
    assert torch.equal(states[0]["weights"]["fc.weight"], states[1]["weights"]["fc.weight"])


def test_the_next_stage_starts_where_the_last_ended(tmp_path: Path) -> None:
    still = {"kind": "finetune", "optimizer": {"lr": 1e-30, "weight_decay": 0.0}}
    fit(tiny({"kind": "dense", "ema": 0.8}, still), tmp_path / "run")
    end = read_checkpoint(tmp_path / "run" / "stages" / "dense.pt").model["fc.weight"]
    last = read_checkpoint(tmp_path / "run" / "last.pt").model["fc.weight"]
    assert torch.equal(end, last)


def test_a_checkpoint_is_the_model(tmp_path: Path) -> None:
    fit(tiny({"kind": "dense"}), tmp_path / "run")
    checkpoint = read_checkpoint(tmp_path / "run" / "best.pt")
    model = rebuilt(checkpoint, trust=True).eval()
    data = registry.make_data("shapes", None, TINY_DATA)
    x, y = data.val.batch(torch.arange(32))
    with torch.no_grad():
        right = float((model(x).argmax(1) == y).float().mean())
    assert right == checkpoint.figures["val_accuracy"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": {"name": "resnet20", "options": {"num_classes": 7}}}, "7,.*10, the classes"),
        (
            {"model": {"name": "tests.train.tiny:FlatNet", "options": {"side": 64}}},
            r"does not take images \(3, 32, 32\)",
        ),
        ({"data": {"name": "cifar10", "root": "nowhere"}}, "nowhere is no folder"),
    ],
)
def test_what_does_not_fit_is_said_before_training(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(TdcError, match=message.replace(".*", "(.|\n)*")):
        fit(tiny({"kind": "dense"}, **more), tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_a_batch_larger_than_the_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="a batch of 65 of 64 training images"):
        fit(tiny({"kind": "dense", "batch": 65}), tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TdcError, match="cannot be made"):
        fit(tiny({"kind": "dense"}), tmp_path / "file" / "run")


def test_damaged_checkpoints_are_said(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(TdcError, match="no checkpoint at"):
        read_checkpoint(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(TdcError, match="is not a checkpoint"):
        read_checkpoint(path)
    torch.save({"format": "tdc-train checkpoint", "version": 99}, path)
    with pytest.raises(TdcError, match="version 99"):
        read_checkpoint(path)
    torch.save({"format": "tdc-train checkpoint", "version": 1}, path)
    with pytest.raises(TdcError, match="no whole checkpoint"):
        read_checkpoint(path)
    fit(tiny({"kind": "dense", "epochs": 1}), tmp_path / "run")
    whole = (tmp_path / "run" / "last.pt").read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(TdcError, match="damaged or no checkpoint"):
            read_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (print, ("run",))

    torch.save({"format": "tdc-train checkpoint", "version": 1, "model": Evil()}, tmp_path / "e.pt")
    with pytest.raises(TdcError, match="damaged or no checkpoint"):
        read_checkpoint(tmp_path / "e.pt")
