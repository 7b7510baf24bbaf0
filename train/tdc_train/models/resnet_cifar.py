"""ResNets for 32x32 images (He et al., CVPR 2016, section 4.2): three stages of 16, 32, 64 channels."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_train.models.norms import Norm, norm_by_name


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; the shortcut takes every second pixel and pads channels with zeros
    (the paper's option A, which has no parameters).
    """

    def __init__(self, channels_in: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = norm(channels)
        self.stride = stride
        self.extra = channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, channels, H/stride, W/stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride != 1 or self.extra:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        return F.relu(x + y)


class CifarResNet(nn.Module):
    """A ResNet of 6n + 2 layers for images [N, 3, 32, 32]."""

    def __init__(
        self, depth: int, num_classes: int = 10, norm: str = "batch", width: int = 16
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise TdcError(f"a CIFAR ResNet of depth {depth}", expected="6n + 2, such as 20")
        make_norm = norm_by_name(norm)
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = make_norm(width)
        blocks = (depth - 2) // 6
        self.layer1 = _stage(width, width, blocks, 1, make_norm)
        self.layer2 = _stage(width, 2 * width, blocks, 2, make_norm)
        self.layer3 = _stage(2 * width, 4 * width, blocks, 2, make_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return cast(Tensor, self.fc(self.avgpool(x).flatten(1)))


def _stage(channels_in: int, channels: int, blocks: int, stride: int, norm: Norm) -> nn.Sequential:
    first = BasicBlock(channels_in, channels, stride, norm)
    rest = [BasicBlock(channels, channels, 1, norm) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def resnet20(num_classes: int = 10, norm: str = "batch", width: int = 16) -> CifarResNet:
    """0.27 million parameters."""
    return CifarResNet(20, num_classes, norm, width)


def resnet32(num_classes: int = 10, norm: str = "batch", width: int = 16) -> CifarResNet:
    """0.46 million parameters."""
    return CifarResNet(32, num_classes, norm, width)


def resnet56(num_classes: int = 10, norm: str = "batch", width: int = 16) -> CifarResNet:
    """0.85 million parameters."""
    return CifarResNet(56, num_classes, norm, width)
