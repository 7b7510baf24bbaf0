"""The whole way on a small set: dense, ADMM, decomposed, fine-tuned, exported, built."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tdc_train.admm")
pytest.importorskip("sklearn")

from tdc_train.data.base import ImageSet
from tdc_train.data.registry import make_data
from tdc_train.recipe_file import recipe_from
from tdc_train.training.assess import write_onnx
from tdc_train.training.checkpoint import read_checkpoint
from tdc_train.training.evaluate import macs
from tdc_train.training.rebuild import rebuilt
from tdc_train.training.run import fit

import tdc_deploy

DATA = {"val": 200, "test": 600}


def stage(kind: str, epochs: int, lr: float, **more: Any) -> dict[str, Any]:
    optimizer = {"lr": lr, "nesterov": True, "weight_decay": 1e-4}
    return {"kind": kind, "epochs": epochs, "batch": 32, "optimizer": optimizer, **more}


RECIPE = {
    "model": {"name": "tdc_train.models.resnet_cifar:CifarResNet", "options": {"depth": 8}},
    "data": {"name": "digits", "options": DATA},
    "stages": [
        stage("dense", 6, 0.05, schedule={"warmup": 1}),
        stage(
            "admm",
            4,
            0.02,
            ranks={"ratio": 0.25, "step": 8, "min_channels": 16},
            admm={"rho": 0.05},
        ),
        {"kind": "decompose", "init": {"images": 512}},
        stage("finetune", 3, 0.01),
    ],
}


def right(model: Any, images: ImageSet) -> Any:
    x, y = images.batch(torch.arange(len(images)))
    with torch.no_grad():
        return torch.cat([model.eval()(part).argmax(1) for part in x.split(100)]) == y


def test_half_the_arithmetic_and_no_measurable_loss(tmp_path: Path) -> None:
    fit(recipe_from(RECIPE, "test"), tmp_path / "run")
    data = make_data("digits", None, DATA)
    dense = rebuilt(read_checkpoint(tmp_path / "run" / "stages" / "dense.pt"), trust=True)
    small = rebuilt(read_checkpoint(tmp_path / "run" / "stages" / "finetune.pt"), trust=True)
    assert macs(small, data.shape) <= 0.5 * macs(dense, data.shape)
    before, after = right(dense, data.test), right(small, data.test)
    # It did learn: chance is 0.1.
    assert before.float().mean() >= 0.9
    change = after.double() - before.double()
    half = 1.96 * float(change.std()) / math.sqrt(len(change))
    assert float(change.mean()) + half >= 0

    onnx, inputs, built = (tmp_path / name for name in ("m.onnx", "in.npz", "fast.onnx"))
    write_onnx(
        tmp_path / "run" / "stages" / "finetune.pt", onnx, inputs=inputs, samples=64, trust=True
    )
    artifact = tdc_deploy.build(onnx, built, inputs=inputs, threads=1)
    assert artifact.comparison.error <= 0.1
    x, _ = data.test.batch(torch.arange(20))
    with tdc_deploy.load(built) as session:
        found = np.concatenate([session(image[None]) for image in x.numpy()])
    with torch.no_grad():
        expected = small(x).numpy()
    # Building folds BatchNorm and may correct a bias: the answers stay.
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.95
