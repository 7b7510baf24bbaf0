"""Mixup (H. Zhang et al., ICLR 2018)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def mixed(
    images: Tensor, targets: Tensor, classes: int, alpha: float, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Each image mixed with its mirror in the batch, by one share drawn from Beta(α, α).

    Args:
        images: [n, C, H, W], in random order.
        targets: [n] class numbers.

    Returns:
        Images, and targets as probabilities [n, classes].
    """
    share = float(random.beta(alpha, alpha))
    wide = F.one_hot(targets, classes).to(images.dtype)
    mix = torch.lerp(images.flip(0), images, share)
    return mix, torch.lerp(wide.flip(0), wide, share)
