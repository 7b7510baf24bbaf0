"""ResNet-18, -34 and -50 (He et al., CVPR 2016), with torchvision's parameter names.

As torchvision's, ResNet-50 has its strides in the 3x3 convolutions.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from tdc_train.models.norms import Norm, norm_by_name


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = norm(channels)
        self.downsample = _shortcut(channels_in, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, channels, H/stride, W/stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; four times `channels` come out."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        channels_out = self.expansion * channels
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = norm(channels)
        self.conv3 = nn.Conv2d(channels, channels_out, 1, bias=False)
        self.bn3 = norm(channels_out)
        self.downsample = _shortcut(channels_in, channels_out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, 4·channels, H/stride, W/stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(channels_in: int, channels: int, stride: int, norm: Norm) -> nn.Sequential | None:
    if stride == 1 and channels_in == channels:
        return None
    conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
    return nn.Sequential(conv, norm(channels))


class ResNet(nn.Module):
    """Four stages of blocks for images [N, 3, H, W], made for 224x224.

    `small_images`: a 3x3 convolution without stride and pooling in front, for 32x32 pixels. `width`:
    channels of the first stage.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        norm: str = "batch",
        small_images: bool = False,
        width: int = 64,
    ) -> None:
        super().__init__()
        make_norm = norm_by_name(norm)
        size, stride, pad = (3, 1, 1) if small_images else (7, 2, 3)
        self.conv1 = nn.Conv2d(3, width, size, stride, pad, bias=False)
        self.bn1 = make_norm(width)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, 2, 1)
        channels_in = width
        for i, depth in enumerate(depths):
            channels = width * 2**i
            blocks: list[nn.Module] = []
            for j in range(depth):
                blocks.append(block(channels_in, channels, 2 if i and not j else 1, make_norm))
                channels_in = channels * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
        return cast(Tensor, self.fc(self.avgpool(x).flatten(1)))


def resnet18(
    num_classes: int = 1000, norm: str = "batch", small_images: bool = False, width: int = 64
) -> ResNet:
    """11.7 million parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, norm, small_images, width)


def resnet34(num_classes: int = 1000, norm: str = "batch", small_images: bool = False) -> ResNet:
    """21.8 million parameters."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, norm, small_images)


def resnet50(num_classes: int = 1000, norm: str = "batch", small_images: bool = False) -> ResNet:
    """25.6 million parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, norm, small_images)
