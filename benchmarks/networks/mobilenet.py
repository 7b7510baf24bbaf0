"""MobileNetV2 (Sandler et al., CVPR 2018): 1x1, depthwise 3x3, 1x1."""

from __future__ import annotations

import torch
from torch import nn

# Expansion, channels, blocks, stride of the first of them.
LAYOUT = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, LAST = 32, 1280


class InvertedResidual(nn.Module):
    """Wider, filtered by channel, narrower again; with a shortcut where the shapes allow one."""

    def __init__(self, channels_in: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        wider = [] if expansion == 1 else [_unit(channels_in, hidden, 1)]
        self.conv = nn.Sequential(
            *wider,
            _unit(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.has_shortcut = stride == 1 and channels_in == channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


class MobileNetV2(nn.Module):
    """Images [N, 3, H, W], made for 224x224 → logits [N, classes]; 3.5 million parameters."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [_unit(3, STEM, 3, 2)]
        channels_in = STEM
        for expansion, channels, blocks, stride in LAYOUT:
            for i in range(blocks):
                first = stride if i == 0 else 1
                layers.append(InvertedResidual(channels_in, channels, expansion, first))
                channels_in = channels
        layers.append(_unit(channels_in, LAST, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(LAST, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


def _unit(
    channels_in: int, channels: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU6())
