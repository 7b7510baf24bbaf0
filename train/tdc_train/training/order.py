"""Which images an epoch's batches hold, and how each is augmented: of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tdc_train.data.base import DRAWS

# What is drawn for an epoch, each of a stream of its own.
ORDER, TORCH, MIXUP, CHOICE, DRAWN = range(5)


@dataclass(frozen=True)
class Moment:
    """An epoch of a run."""

    seed: int
    stage: int
    epoch: int

    def random(self, purpose: int, rank: int = 0) -> np.random.Generator:
        """Random numbers that belong to this epoch, whatever came before."""
        return np.random.default_rng((self.seed, self.stage, self.epoch, purpose, rank))

    def seed_torch(self, rank: int) -> None:
        """For what draws by itself, such as dropout."""
        torch.manual_seed(int(self.random(TORCH, rank).integers(2**62)))


def epoch_batches(
    moment: Moment, images: int, batch: int, rank: int, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """A process's part of each batch: indices [batch/size] and draws [batch/size, DRAWS].

    All images in random order; what is left at the end and would not fill a batch is left out.
    """
    random = moment.random(ORDER)
    order = torch.from_numpy(random.permutation(images))
    draws = torch.from_numpy(random.random((images, DRAWS), dtype=np.float32))
    for start in range(0, images - batch + 1, batch):
        part = slice(start + rank, start + batch, size)
        yield order[part], draws[part]
