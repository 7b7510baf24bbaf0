"""What a data set is to the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

# Uniform numbers that an image's augmentation may use.
DRAWS = 6


class ImageSet(Protocol):
    """Images with class numbers, read by index."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normalised images, float32 [n, C, H, W], and classes, int64 [n].

        Args:
            indices: int64 [n], each below the length.
            draws: [n, DRAWS] uniform in [0, 1), which determine the augmentation; None: no
                augmentation.
        """
        ...


@dataclass(frozen=True)
class Data:
    """The three parts of a data set: to train on, to choose by, to report on.

    `shape` is an image's (C, H, W).
    """

    train: ImageSet
    val: ImageSet
    test: ImageSet
    classes: int
    shape: tuple[int, int, int]
