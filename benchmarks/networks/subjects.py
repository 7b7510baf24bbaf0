"""What plan quality is measured on: the drawn networks, and the checkpoints that come along."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tdc_train.data.registry import make_data
from tdc_train.recipe_file import recipe_from
from tdc_train.training.assess import write_onnx
from tdc_train.training.checkpoint import read_checkpoint

from benchmarks.models import image_like
from benchmarks.networks.registry import NETWORKS, prepare
from tdc_deploy.files import write_whole
from tdc_deploy.npz import npz_bytes

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"

# Names of trained networks, and the share of the dense time that is planned for.
TRAINED = {"resnet20_dense": 0.75, "vgg16_bn_quarter_dense": 0.5}
DRAWN_BUDGET = 0.5
BATCH = 1

# So many images repair, and so many others verify.
TRAINED_SAMPLES = 1000

# Images to decompose for; of a trained network, of its training part.
CALIBRATION = {"trained": 512, "drawn": 64}
CALIBRATION_SEED = 8


@dataclass(frozen=True)
class Subject:
    """A network, its inputs (with labels if it is trained), and the share of time to plan for.

    `calibration` are other images, without labels. `paths` are its layers' module paths, None for a
    trained network, whose layers are named by them.
    """

    name: str
    model: Path
    inputs: Path
    calibration: Path
    budget: float
    paths: Path | None = None

    def module_paths(self) -> dict[str, str]:
        """Layer name → module path."""
        assert self.paths is not None
        return dict(json.loads(self.paths.read_text()))


def subject(folder: Path, name: str) -> Subject:
    """A network at BATCH; its files are written to `folder` unless they are there."""
    if name in TRAINED:
        return _trained(folder, name)
    files = prepare(folder, name, BATCH)
    calibration = folder / f"{name}.calibration.npz"
    if not calibration.exists():
        size = NETWORKS[name].size
        images = image_like(CALIBRATION["drawn"], 3, size, CALIBRATION_SEED)
        write_whole({calibration: npz_bytes({"image": images})})
    return Subject(name, files.model, files.inputs, calibration, DRAWN_BUDGET, files.paths)


def _trained(folder: Path, name: str) -> Subject:
    """Samples alternate: those of the validation part repair, those of the test part verify."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, model = CHECKPOINTS / f"{name}.pt", folder / f"{name}.onnx"
    inputs, calibration = (folder / f"{name}{end}.npz" for end in ("", ".calibration"))
    if not model.exists() or not calibration.exists():
        recipe = recipe_from(read_checkpoint(checkpoint).recipe, "the checkpoint")
        data = make_data(recipe.data.name, recipe.data.root, recipe.data.options)
        parts = [part.batch(torch.arange(TRAINED_SAMPLES)) for part in (data.val, data.test)]
        images, labels = (_alternating(*arrays) for arrays in zip(*parts, strict=True))
        np.savez(inputs, image=images, labels=labels)
        seen, _ = data.train.batch(torch.arange(CALIBRATION["trained"]))
        write_whole({calibration: npz_bytes({"image": seen.numpy()})})
        write_onnx(checkpoint, model)
    return Subject(name, model, inputs, calibration, TRAINED[name])


def _alternating(first: torch.Tensor, second: torch.Tensor) -> Any:
    return torch.stack((first, second), 1).flatten(0, 1).contiguous().numpy()
