"""DenseNet-121 and -201 (Huang et al., CVPR 2017), with torchvision's parameter names."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdc_train.models.norms import Norm, norm_by_name

GROWTH = 32
# Channels of a layer's 1x1 convolution, in growths.
BOTTLENECK = 4
STEM = 64


class DenseLayer(nn.Module):
    """1x1 and 3x3 convolutions, each after its normalisation; 32 channels come out."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(channels)
        self.conv1 = nn.Conv2d(channels, BOTTLENECK * GROWTH, 1, bias=False)
        self.norm2 = norm(BOTTLENECK * GROWTH)
        self.conv2 = nn.Conv2d(BOTTLENECK * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] → [N, 32, H, W]."""
        x = self.conv1(F.relu(self.norm1(x)))
        return cast(Tensor, self.conv2(F.relu(self.norm2(x))))


class DenseBlock(nn.Module):
    """Layers that each see all that came before them."""

    def __init__(self, channels: int, layers: int, norm: Norm) -> None:
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(channels + i * GROWTH, norm))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C + 32·layers, H, W]."""
        for layer in self.children():
            x = torch.cat((x, layer(x)), 1)
        return x


class Transition(nn.Module):
    """Halves the channels and the sides."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C/2, H/2, W/2]."""
        return cast(Tensor, self.pool(self.conv(F.relu(self.norm(x)))))


class DenseNet(nn.Module):
    """Four dense blocks for images [N, 3, H, W], made for 224x224."""

    def __init__(self, depths: tuple[int, ...], num_classes: int, norm: str) -> None:
        super().__init__()
        make_norm = norm_by_name(norm)
        features = nn.Sequential()
        features.add_module("conv0", nn.Conv2d(3, STEM, 7, 2, 3, bias=False))
        features.add_module("norm0", make_norm(STEM))
        features.add_module("relu0", nn.ReLU(inplace=True))
        features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        channels = STEM
        for i, depth in enumerate(depths, 1):
            features.add_module(f"denseblock{i}", DenseBlock(channels, depth, make_norm))
            channels += depth * GROWTH
            if i < len(depths):
                features.add_module(f"transition{i}", Transition(channels, make_norm))
                channels //= 2
        features.add_module("norm5", make_norm(channels))
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        x = F.relu(self.features(x))
        return cast(Tensor, self.classifier(self.avgpool(x).flatten(1)))


def densenet121(num_classes: int = 1000, norm: str = "batch") -> DenseNet:
    """8.0 million parameters."""
    return DenseNet((6, 12, 24, 16), num_classes, norm)


def densenet201(num_classes: int = 1000, norm: str = "batch") -> DenseNet:
    """20.0 million parameters."""
    return DenseNet((6, 12, 48, 32), num_classes, norm)
