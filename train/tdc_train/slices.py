"""Slice-wise feature distillation: each part of a compressed network learns its teacher's part alone.

A slice sees the teacher's input of that slice and is to give the teacher's output. No labels, no
gradient through the rest of the network, and every slice can be fitted on few images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_train.distill import LEAST_ENERGY, decomposed_layers, feature_distance
from tdc_train.features import module_at
from tdc_train.modes import evaluating

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class SliceResult:
    """How far a slice's output is from the teacher's, relative (‖y−ŷ‖² / ‖y‖²), before and after."""

    path: str
    before: float
    after: float


def distill_slices(
    model: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Tensor],
    *,
    slices: Sequence[str] | None = None,
    epochs: int = 5,
    lr: float = LEARNING_RATE,
    inputs_of: nn.Module | None = None,
) -> list[SliceResult]:
    """Fit each slice of `model` to the teacher's, in place, by Adam with a cosine schedule.

    A slice that ends no nearer than it began, or diverges, is put back. BatchNorm uses its running
    statistics and does not change them.

    Args:
        batches: images [n, C, H, W].
        slices: module paths, the same in both networks; by default `slices_of(model)`.
        epochs: passes over the batches for each slice.
        inputs_of: whose inputs a slice is given; the teacher's by default, or the model itself, whose
            slices then also make up for the error of those before.

    Raises:
        TdcError: no such module, shapes that differ, or no images.
    """
    if epochs < 1 or not sum(map(len, batches)):
        raise TdcError(
            f"{epochs} epochs over {sum(map(len, batches))} images", expected="at least one of each"
        )
    paths = slices_of(model) if slices is None else list(slices)
    if not paths:
        raise TdcError(
            "no slices", expected="a network with decomposed layers, or paths of modules"
        )
    with evaluating(model, teacher):
        return [
            _fit(model, teacher, path, batches, epochs, lr, inputs_of or teacher) for path in paths
        ]


def slices_of(model: nn.Module) -> list[str]:
    """For each decomposed layer the block it is in: its nearest ancestor in a Sequential of blocks, or
    the layer itself if it stands in a Sequential on its own.
    """
    found: list[str] = []
    for path in decomposed_layers(model):
        parts = path.split(".")
        block = path
        for depth in range(1, len(parts)):
            parent = model.get_submodule(".".join(parts[: depth - 1]))
            if isinstance(parent, nn.Sequential):
                block = ".".join(parts[:depth])
                break
        if block not in found:
            found.append(block)
    return found


def _fit(
    model: nn.Module,
    teacher: nn.Module,
    path: str,
    batches: Sequence[Tensor],
    epochs: int,
    lr: float,
    inputs_of: nn.Module,
) -> SliceResult:
    student, taught = module_at(model, path), module_at(teacher, path)
    inputs = _inputs(inputs_of, path, batches)
    targets = inputs if inputs_of is teacher else _inputs(teacher, path, batches)
    with torch.no_grad():
        wanted = [taught(x) for x in targets]
    before = _distance(student, inputs, wanted)
    kept = {name: value.clone() for name, value in student.state_dict().items()}
    _train(student, inputs, wanted, epochs, lr)
    after = _distance(student, inputs, wanted)
    if not after < before:
        student.load_state_dict(kept)
        after = before
    return SliceResult(path, before, after)


def _train(
    student: nn.Module, inputs: Sequence[Tensor], wanted: Sequence[Tensor], epochs: int, lr: float
) -> None:
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(inputs))
    for _ in range(epochs):
        for x, y in zip(inputs, wanted, strict=True):
            loss = feature_distance(student(x), y)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            schedule.step()
    for parameter in parameters:
        parameter.grad = None


@torch.no_grad()
def _inputs(model: nn.Module, path: str, batches: Sequence[Tensor]) -> list[Tensor]:
    """What the slice of `model` is given for each batch."""
    found: list[Tensor] = []
    hook = module_at(model, path).register_forward_pre_hook(
        lambda _module, inputs: found.append(inputs[0].detach())
    )
    try:
        for images in batches:
            model(images)
    finally:
        hook.remove()
    if len(found) != len(batches):
        raise TdcError(
            f"slice {path!r} ran {len(found)} times for {len(batches)} batches",
            expected="a module that a forward pass runs once",
        )
    return found


@torch.no_grad()
def _distance(student: nn.Module, inputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    lost = sum(float((student(x) - y).square().sum()) for x, y in zip(inputs, wanted, strict=True))
    energy = sum(float(y.square().sum()) for y in wanted)
    return lost / (energy + LEAST_ENERGY)
