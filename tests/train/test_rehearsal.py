"""Mistakes in later stages are found before the first one is trained."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tdc_train.data import registry
from tdc_train.data.shapes import generate
from tdc_train.models.resnet_cifar import resnet20
from tdc_train.training.checkpoint import read_checkpoint
from tdc_train.training.run import fit

from tdc_deploy.errors import TdcError
from tests.train.tiny import TinyNet, tiny

RANKS = {"layers": {"conv2": {"form": "tucker2", "r_in": 8, "r_out": 8}}}
DECOMPOSE = {"kind": "decompose", "ranks": RANKS, "init": {"images": 16}}
ONE = {"kind": "dense", "epochs": 1}


@pytest.fixture(scope="module", autouse=True)
def _generated_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "generate", cache(generate))
        yield


def taught(teacher: str, name: str = "soft", **more: Any) -> dict[str, Any]:
    return {"kind": "finetune", "distill": {"name": name, "teacher": teacher, **more}}


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (taught("dence"), "no teacher 'dence'"),
        (taught("finetune"), "'finetune' of stage 'finetune' is not an earlier stage"),
        (taught("resnet20"), "teacher 'resnet20' has random weights"),
        (taught("tests.train.tiny:TinyNet"), "has random weights"),
        (taught("resnet20", weights="none.pt"), "no weights at none.pt"),
        (taught("dense", "feature"), "feature distillation without layers"),
        ({"kind": "finetune", "batch": 65}, "stage 'finetune' has a batch of 65 of 64"),
    ],
)
def test_before_the_first_stage(tmp_path: Path, stage: dict[str, Any], message: str) -> None:
    with pytest.raises(TdcError, match=message):
        fit(tiny(ONE, stage), tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_a_weight_above_one_is_no_recipe() -> None:
    with pytest.raises(TdcError, match=r"weight is 5"):
        tiny(ONE, taught("dense", weight=5))


def test_a_teacher_with_other_classes(tmp_path: Path) -> None:
    torch.save(resnet20(num_classes=7).state_dict(), tmp_path / "w.pt")
    more = {"options": {"num_classes": 7}, "weights": str(tmp_path / "w.pt")}
    with pytest.raises(TdcError, match=r"resnet20 gives \(7,\) outputs"):
        fit(tiny(ONE, taught("resnet20", "hard", **more)), tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_a_teacher_without_the_slices(tmp_path: Path) -> None:
    torch.save(resnet20().state_dict(), tmp_path / "w.pt")
    slices = {**taught("resnet20", "none", weights=str(tmp_path / "w.pt")), "kind": "slices"}
    del slices["distill"]["name"]
    slices["optimizer"] = {"name": "adamw", "lr": 1e-3, "weight_decay": 0.0}
    with pytest.raises(TdcError, match="no module 'conv2'"):
        fit(tiny(ONE, DECOMPOSE, slices), tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_teachers_that_fit_pass(tmp_path: Path) -> None:
    one = {"epochs": 1}
    torch.save(TinyNet().state_dict(), tmp_path / "w.pt")
    file = taught("tests.train.tiny:TinyNet", "hard", weights=str(tmp_path / "w.pt"))
    result = fit(
        tiny(
            ONE,
            DECOMPOSE,
            {**taught("dense", "feature"), **one},
            {**file, "name": "second", **one},
        ),
        tmp_path / "run",
    )
    assert len(result.rows) == 4


def test_a_decomposed_checkpoint_is_a_start(tmp_path: Path) -> None:
    fit(tiny(ONE, DECOMPOSE), tmp_path / "run")
    end = read_checkpoint(tmp_path / "run" / "last.pt")
    model = {"name": "tests.train.tiny:TinyNet", "weights": str(tmp_path / "run" / "last.pt")}
    still = {"kind": "finetune", "optimizer": {"lr": 1e-30, "weight_decay": 0.0}}
    fit(tiny(still, model=model), tmp_path / "more")
    found = read_checkpoint(tmp_path / "more" / "last.pt")
    assert found.plan == end.plan
    assert torch.equal(found.model["conv2.core.weight"], end.model["conv2.core.weight"])
    # The file may be gone once the run has a checkpoint.
    (tmp_path / "run" / "last.pt").unlink()
    assert len(fit(tiny(still, model=model), tmp_path / "more", resume=True).rows) == 2


def test_it_is_not_decomposed_again(tmp_path: Path) -> None:
    fit(tiny(ONE, DECOMPOSE), tmp_path / "run")
    model = {"name": "tests.train.tiny:TinyNet", "weights": str(tmp_path / "run" / "last.pt")}
    with pytest.raises(TdcError, match="decomposed already"):
        fit(tiny(DECOMPOSE, model=model), tmp_path / "more")


def test_slices_of_dense_weights(tmp_path: Path) -> None:
    torch.save(TinyNet().state_dict(), tmp_path / "w.pt")
    model = {"name": "tests.train.tiny:TinyNet", "weights": str(tmp_path / "w.pt")}
    slices = {"kind": "slices", "distill": taught("tests.train.tiny:TinyNet")["distill"]}
    slices["distill"]["weights"] = model["weights"]
    slices["optimizer"] = {"name": "adamw", "lr": 1e-3, "weight_decay": 0.0}
    with pytest.raises(TdcError, match="slices of a dense model"):
        fit(tiny(slices, model=model), tmp_path / "more")
