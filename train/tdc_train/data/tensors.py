"""A set of images held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augment:
    """Random shifts of up to `shift` pixels, over reflected borders, and mirroring."""

    shift: int = 0
    flip: bool = False


class TensorSet:
    """Images uint8 [N, C, H, W] and classes int64 [N], normalised as (x/255 − mean) / std."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Augment | None = None,
    ) -> None:
        self._images = images
        self._labels = labels
        self._mean = torch.tensor(mean).view(1, -1, 1, 1)
        self._std = torch.tensor(std).view(1, -1, 1, 1)
        self._augment = augment or Augment()

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: Tensor, draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `ImageSet.batch`; draws: mirroring, vertical and horizontal shift."""
        images = self._images[indices]
        if draws is not None:
            images = _augmented(images, draws, self._augment)
        return (images.float() / 255.0 - self._mean) / self._std, self._labels[indices]


def _augmented(images: Tensor, draws: Tensor, augment: Augment) -> Tensor:
    if augment.shift:
        images = _shifted(images, augment.shift, draws[:, 1], draws[:, 2])
    if augment.flip:
        images = torch.where((draws[:, 0] < 0.5)[:, None, None, None], images.flip(3), images)
    return images


def _shifted(images: Tensor, shift: int, down: Tensor, right: Tensor) -> Tensor:
    """Each image's window of its own size in the image with reflected borders."""
    height, width = images.shape[2:]
    # Reflection is not there for bytes; floats hold them exactly.
    large = F.pad(images.float(), (shift,) * 4, mode="reflect").to(images.dtype)
    rows = (down * (2 * shift + 1)).long()[:, None] + torch.arange(height)
    columns = (right * (2 * shift + 1)).long()[:, None] + torch.arange(width)
    each = torch.arange(len(images))[:, None, None]
    # Indices around a slice put the channels last.
    window = large[each, :, rows[:, :, None], columns[:, None, :]]
    return window.permute(0, 3, 1, 2)
