"""How good and how large a network is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdc_train.data.base import ImageSet
from tdc_train.modes import evaluating
from tdc_train.training.distributed import World

BATCH = 250


@dataclass(frozen=True)
class Score:
    """Right answers and the mean cross-entropy of a network on `images` images."""

    right: int
    images: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accuracy."""
        return wilson(self.right, self.images)


def wilson(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share (E. B. Wilson, J. Am. Stat. Assoc. 1927)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, scale = right / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


@torch.no_grad()
def score(
    model: nn.Module,
    images: ImageSet,
    world: World | None = None,
    watch: Callable[[int, int], None] | None = None,
    batch: int = BATCH,
) -> Score:
    """The model on a set, in eval mode; each process takes every size-th batch, all get the sum."""
    world = world or World()
    sums = torch.zeros(3, dtype=torch.float64, device=world.device)
    starts = range(0, len(images), batch)
    with evaluating(model):
        for i in range(world.rank, len(starts), world.size):
            indices = torch.arange(starts[i], min(starts[i] + batch, len(images)))
            x, y = (t.to(world.device, non_blocking=True) for t in images.batch(indices))
            logits = model(x).float()
            loss = F.cross_entropy(logits, y, reduction="sum")
            right = (logits.argmax(1) == y).sum()
            sums += torch.stack(
                (right.double(), loss.double(), torch.ones_like(loss).double() * len(y))
            )
            if watch is not None:
                watch(i + 1, len(starts))
    right_sum, loss_sum, count = world.total(sums).tolist()
    return Score(int(right_sum), int(count), loss_sum / count)


def parameters(model: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Multiply-adds of the convolutions and linear layers for one image [C, H, W]."""
    return sum(layer_macs(model, shape).values())


@torch.no_grad()
def layer_macs(model: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    """Module path → the multiply-adds of each convolution and linear layer for one image [C, H, W]."""
    found: dict[str, int] = {}

    def count(path: str, module: nn.Module, _inputs: object, output: Tensor) -> None:
        # Each output element takes one row of the weight.
        weight = cast(Tensor, module.weight)
        uses = output.numel() * (weight.numel() // weight.shape[0])
        found[path] = found.get(path, 0) + uses

    layers = {p: m for p, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    hooks = [layer.register_forward_hook(partial(count, path)) for path, layer in layers.items()]
    try:
        with evaluating(model):
            model(torch.zeros(1, *shape, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return found
