"""The learning rate and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from tdc_train.recipe import OptimizerSpec, ScheduleSpec


def rate(spec: ScheduleSpec, epoch: float, epochs: int) -> float:
    """The learning rate's share at a moment, counted in epochs from the stage's start.

    A function of the moment alone, so that a resumed run needs no state of it.
    """
    if epoch < spec.warmup:
        return max(epoch / spec.warmup, 1e-3)
    if spec.name == "cosine":
        done = (epoch - spec.warmup) / max(epochs - spec.warmup, 1e-9)
        return spec.floor + (1 - spec.floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if spec.name == "step":
        return float(spec.gamma ** (int(epoch) // spec.step))
    return 1.0


def make_optimizer(spec: OptimizerSpec, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """An optimizer of the model's parameters; vectors are a group of their own."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": list(_of_rank(trained, vectors=False)), "weight_decay": spec.weight_decay},
        {
            "params": list(_of_rank(trained, vectors=True)),
            "weight_decay": spec.weight_decay if spec.decay_all else 0.0,
        },
    ]
    groups = [group for group in groups if group["params"]]
    if spec.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(spec.beta1, spec.beta2))
    return torch.optim.SGD(groups, lr=lr, momentum=spec.momentum, nesterov=spec.nesterov)


def _of_rank(parameters: Iterable[nn.Parameter], *, vectors: bool) -> Iterable[nn.Parameter]:
    return (p for p in parameters if (p.ndim <= 1) == vectors)
