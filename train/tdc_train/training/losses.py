"""The usual loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy with label smoothing; a `Loss`."""

    label_smoothing: float = 0.0

    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The mean over the batch, and the logits."""
        logits = model(images)
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing), logits
