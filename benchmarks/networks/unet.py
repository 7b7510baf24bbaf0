"""A U-Net (Ronneberger et al., MICCAI 2015), padded, with BatchNorm: as it is used today."""

from __future__ import annotations

import torch
from torch import nn

DEPTH = 4


class UNet(nn.Module):
    """Images [N, 3, H, W], H and W multiples of 16 → a score per class and pixel [N, classes, H, W]."""

    def __init__(self, width: int = 32, classes: int = 2) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(DEPTH + 1)]
        self.down = nn.ModuleList(
            _double(c_in, c) for c_in, c in zip([3, *widths], widths, strict=False)
        )
        narrowing = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c_in, c, 2, 2) for c_in, c in narrowing)
        self.merge = nn.ModuleList(_double(2 * c, c) for _, c in narrowing)
        self.pool = nn.MaxPool2d(2, 2)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat((skips.pop(), up(x)), 1))
        scores: torch.Tensor = self.head(x)
        return scores


def _double(channels_in: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for c_in in (channels_in, channels):
        layers += [nn.Conv2d(c_in, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)
