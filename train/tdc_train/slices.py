"""Slice-wise feature distillation: each part of a compressed network learns its teacher's part alone.

A slice sees the teacher's input of that slice and is to give the teacher's output. No labels, no
gradient through the rest of the network, and every slice can be fitted on few images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_train.batches import check_repeatable
from tdc_train.distill import LEAST_ENERGY, decomposed_layers, feature_distance
from tdc_train.features import module_at
from tdc_train.modes import evaluating

LEARNING_RATE = 1e-3

# Inputs and outputs of a slice that are kept; beyond that they are computed anew in each pass.
KEPT_BYTES = 2**30

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SliceResult:
    """How far a slice's output is from the teacher's, relative (‖y−ŷ‖² / ‖y‖²), before and after."""

    path: str
    before: float
    after: float


@dataclass(frozen=True)
class Fitting:
    """How each slice is trained: by AdamW with half a cosine as schedule."""

    epochs: int = 5
    lr: float = LEARNING_RATE
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)


class Examples:
    """A slice's inputs and wanted outputs, batch by batch: kept as long as they are few."""

    def __init__(self, make: Callable[[], Iterator[Pair]]) -> None:
        self._make = make
        self._kept: list[Pair] | None = None
        self.batches = 0
        self.images = 0

    def __iter__(self) -> Iterator[Pair]:
        """The same pairs in each pass; the caller may write into the inputs."""
        if self._kept is not None:
            yield from ((x.clone(), y) for x, y in self._kept)
            return
        self.batches = self.images = held = 0
        kept = []
        for x, y in self._make():
            self.batches += 1
            self.images += len(x)
            held += x.nbytes + y.nbytes
            if held <= KEPT_BYTES:
                kept.append((x.clone(), y))
            else:
                kept.clear()
            yield x, y
        if held <= KEPT_BYTES:
            self._kept = kept


def distill_slices(
    model: nn.Module,
    teacher: nn.Module,
    batches: Iterable[Tensor],
    *,
    slices: Sequence[str] | None = None,
    fitting: Fitting = Fitting(),
    inputs_of: nn.Module | None = None,
) -> list[SliceResult]:
    """Fit each slice of `model` to the teacher's, in place.

    A slice that ends no nearer than it began, or diverges, is put back. BatchNorm uses its running
    statistics and does not change them.

    Args:
        batches: images [n, C, H, W]; iterated once for each slice, or if its inputs and outputs are more
            than KEPT_BYTES, once an epoch.
        slices: module paths, the same in both networks; by default `slices_of(model)`.
        fitting: for each slice.
        inputs_of: whose inputs a slice is given; the teacher's by default, or the model itself, whose
            slices then also make up for the error of those before.

    Raises:
        TdcError: no such module, shapes that differ, no images or epochs, or batches that can be iterated
            only once.
    """
    if fitting.epochs < 1:
        raise TdcError(f"{fitting.epochs} epochs", expected="at least one")
    check_repeatable(batches)
    paths = slices_of(model) if slices is None else list(slices)
    if not paths:
        raise TdcError(
            "no slices", expected="a network with decomposed layers, or paths of modules"
        )
    with evaluating(model, teacher):
        return [
            _fit(model, teacher, path, batches, fitting, inputs_of or teacher) for path in paths
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
    batches: Iterable[Tensor],
    fitting: Fitting,
    inputs_of: nn.Module,
) -> SliceResult:
    student = module_at(model, path)
    examples = Examples(lambda: _pairs(teacher, inputs_of, path, batches))
    before = _distance(student, examples)
    if not examples.images:
        raise TdcError("no images to fit slices on", expected="at least one")
    kept = {name: value.clone() for name, value in student.state_dict().items()}
    _train(student, examples, fitting)
    after = _distance(student, examples)
    if not after < before:
        student.load_state_dict(kept)
        after = before
    return SliceResult(path, before, after)


def _train(student: nn.Module, examples: Examples, fitting: Fitting) -> None:
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, fitting.lr, fitting.betas, weight_decay=fitting.weight_decay
    )
    steps = fitting.epochs * examples.batches
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(fitting.epochs):
        for x, y in examples:
            loss = feature_distance(student(x), y)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            schedule.step()
    for parameter in parameters:
        parameter.grad = None


@torch.no_grad()
def _pairs(
    teacher: nn.Module, inputs_of: nn.Module, path: str, batches: Iterable[Tensor]
) -> Iterator[Pair]:
    """For each batch what the slice is given, and what the teacher's slice makes of its own input."""
    taught = module_at(teacher, path)
    for images in batches:
        x = _input(inputs_of, path, images)
        # A slice may begin with an operation in place.
        own = x.clone() if inputs_of is teacher else _input(teacher, path, images)
        yield x, taught(own)


def _input(model: nn.Module, path: str, images: Tensor) -> Tensor:
    """What the slice of `model` is given for a batch."""
    found: list[Tensor] = []
    hook = module_at(model, path).register_forward_pre_hook(
        lambda _module, inputs: found.append(inputs[0].detach().clone())
    )
    try:
        model(images)
    finally:
        hook.remove()
    if len(found) != 1:
        raise TdcError(
            f"slice {path!r} ran {len(found)} times for one batch",
            expected="a module that a forward pass runs once",
        )
    return found[0]


@torch.no_grad()
def _distance(student: nn.Module, examples: Examples) -> float:
    lost = energy = 0.0
    for x, y in examples:
        lost += float((student(x) - y).square().sum())
        energy += float(y.square().sum())
    return lost / (energy + LEAST_ENERGY)
