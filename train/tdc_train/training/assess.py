"""A finished model: measured on its data, or handed on for deployment."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.files import check_distinct, check_writable
from tdc_deploy.progress import Progress, silent
from tdc_train.constraints import Constraints, constrained_macs, sizes
from tdc_train.data.base import Data, ImageSet
from tdc_train.data.registry import make_data
from tdc_train.projections.sets import ConstraintSet
from tdc_train.recipe import Recipe
from tdc_train.recipe_file import recipe_from
from tdc_train.training.checkpoint import Checkpoint, read_checkpoint
from tdc_train.training.distributed import joined
from tdc_train.training.evaluate import Score, layer_macs, parameters, score
from tdc_train.training.rebuild import find_checkpoint, rebuilt

SPLITS = ("train", "val", "test")
INPUT = "image"


@dataclass(frozen=True)
class Assessment:
    """A network on a part of its data; `macs` per image, with nonzero numbers only where sets hold them.

    `constraints` is what `constraints.sizes` gives, of a network that sets hold.
    """

    checkpoint: Path
    split: str
    score: Score
    macs: int
    parameters: int
    constraints: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "checkpoint": str(self.checkpoint),
            "split": self.split,
            "accuracy": self.score.accuracy,
            "interval": list(self.score.interval),
            "right": self.score.right,
            "images": self.score.images,
            "loss": self.score.loss,
            "macs": self.macs,
            "parameters": self.parameters,
            **({} if self.constraints is None else {"constraints": self.constraints}),
        }


def assess(
    path: Path,
    *,
    data: Path | None = None,
    split: str = "test",
    device: str = "auto",
    threads: int = 0,
    trust: bool = False,
    progress: Progress = silent,
) -> Assessment:
    """Measure a run's best model, or a checkpoint.

    Args:
        data: the data set's folder, instead of the recipe's.
        split: train (without augmentation), val or test.
        trust: whether code that the checkpoint names may be run (`rebuilt`).

    Raises:
        TdcError: no checkpoint, or the data are not there.
    """
    if split not in SPLITS:
        raise TdcError(f"split {split!r}", expected=f"one of {', '.join(SPLITS)}")
    if threads:
        torch.set_num_threads(threads)
    file, model, recipe, checkpoint = _loaded(path, trust)
    held = Constraints.from_json(checkpoint.constraints).held
    found_sizes = sizes(model, held) if held else None
    found = _data(recipe, data)
    images: ImageSet = getattr(found, split)
    with joined(device) as world:
        model.to(world.device)
        return Assessment(
            checkpoint=file,
            split=split,
            score=score(model, images, world, partial(progress, f"{split} images")),
            macs=constrained_macs(layer_macs(model, found.shape), found_sizes or {"layers": {}}),
            parameters=parameters(model),
            constraints=found_sizes,
        )


def write_onnx(
    path: Path,
    output: Path,
    *,
    exporter: str = "torchscript",
    opset: int = 17,
    batch: int = 1,
    inputs: Path | None = None,
    samples: int = 256,
    data: Path | None = None,
    trust: bool = False,
    basis_chains: bool = False,
    threads: int = 0,
) -> Path:
    """Export a run's best model, or a checkpoint; returns the checkpoint.

    Args:
        batch: images per call; 0: any number.
        inputs: where to write validation images under `image` and classes under `labels` (.npz), for
            tdc-deploy; with the ONNX file, both or neither.
        samples: how many of them at most.
        data: the data set's folder, instead of the recipe's; read for `inputs`, and for a checkpoint
            that does not know its images' shape.
        trust: whether code that the checkpoint names may be run (`rebuilt`).
        basis_chains: whether layers of a shared kernel basis become chains where ONNX Runtime, on this
            machine with so many `threads` (0: its own choice), is measured to be faster with them.

    Raises:
        TdcError: no checkpoint, the data are not there, or a file has another suffix, is the checkpoint or
            cannot be written.
    """
    from tdc_train.export import export_onnx

    if batch < 0 or samples < 1:
        raise TdcError(
            f"batch {batch}, samples {samples}", expected="batch 0 or more, samples 1 or more"
        )
    targets = {output: ".onnx"} if inputs is None else {output: ".onnx", inputs: ".npz"}
    _check_targets(targets, find_checkpoint(path))
    file, model, recipe, checkpoint = _loaded(path, trust)
    shape, beside = checkpoint.shape, dict[Path, bytes]()
    if shape is None or inputs is not None:
        found = _data(recipe, data)
        shape = list(found.shape)
        if inputs is not None:
            beside = {inputs: sample_file(found.val, samples)}
    held = Constraints.from_json(checkpoint.constraints).held
    found_sizes = sizes(model, held) if held else None
    if found_sizes is not None and basis_chains:
        found_sizes["basis_chains"] = _with_chains(model, held, (batch or 1, *shape), threads)
    export_onnx(
        model,
        output,
        (batch or 1, *shape),
        opset,
        exporter,  # type: ignore[arg-type]
        open_batch=batch == 0,
        input_name=INPUT,
        accuracy=checkpoint.figures.get("val_accuracy"),
        constraints=found_sizes,
        beside=beside,
    )
    return file


def _check_targets(targets: Mapping[Path, str], checkpoint: Path) -> None:
    """Raise TdcError if a file to write has another suffix, is the checkpoint or cannot be written."""
    for target, suffix in targets.items():
        if target.suffix != suffix:
            raise TdcError(f"the output {target}", expected=f"a name that ends in {suffix}")
        check_writable(target)
    check_distinct(targets, [checkpoint])


def _with_chains(
    model: nn.Module, held: Mapping[str, ConstraintSet], shape: Sequence[int], threads: int
) -> dict[str, Any]:
    """Put the chains that are faster into the model; module path → what was measured."""
    from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
    from tdc_train.basis_export import apply_faster_bases

    measured = apply_faster_bases(model, held, shape, OnnxRuntimeBackend(threads))
    return {entry.path: entry.as_json() for entry in measured}


def _loaded(path: Path, trust: bool) -> tuple[Path, nn.Module, Recipe, Checkpoint]:
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    recipe = recipe_from(checkpoint.recipe, "the checkpoint's recipe")
    return file, rebuilt(checkpoint, trust=trust), recipe, checkpoint


def _data(recipe: Recipe, root: Path | None) -> Data:
    folder = recipe.data.root if root is None else str(root)
    return make_data(recipe.data.name, folder, recipe.data.options)


def sample_file(images: ImageSet, count: int) -> bytes:
    """Images and labels as tdc-deploy reads them (.npz), the first `count`."""
    buffer = io.BytesIO()
    pixels, labels = images.batch(torch.arange(min(count, len(images))))
    arrays: dict[str, Any] = {INPUT: pixels.contiguous().numpy(), "labels": labels.numpy()}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
