"""Training images for what is measured on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tdc_train.data.base import ImageSet
from tdc_train.training.order import Moment, epoch_batches


@dataclass(frozen=True)
class SomeImages:
    """At least `count` images without augmentation (or all), in batches on the device.

    The same in each pass, and read anew in it: only one batch is in memory.
    """

    images: ImageSet
    moment: Moment
    batch: int
    count: int
    device: torch.device

    def __iter__(self) -> Iterator[Tensor]:
        count = min(self.count, len(self.images))
        batch = min(self.batch, count)
        read = 0
        for indices, _ in epoch_batches(self.moment, len(self.images), batch, 0, 1):
            yield self.images.batch(indices)[0].to(self.device)
            read += batch
            if read >= count:
                break
