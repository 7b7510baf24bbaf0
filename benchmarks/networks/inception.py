"""A network of Inception-v3's blocks (Szegedy et al., CVPR 2016), 1x7 and 7x1 kernels among them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

Kernel = tuple[int, int]


class Unit(nn.Module):
    """A convolution that keeps the size (of stride 1), BatchNorm and ReLU."""

    def __init__(self, channels_in: int, channels: int, kernel: Kernel, stride: int = 1) -> None:
        super().__init__()
        pads = (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, pads, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """Several paths from the same input, whose outputs are put together; one begins with pooling."""

    def __init__(self, paths: list[nn.Module], pooled: nn.Module | None, stride: int = 1) -> None:
        super().__init__()
        self.paths = nn.ModuleList(paths)
        self.pooled = pooled
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = [path(x) for path in self.paths]
        if self.stride == 1:
            pooled = functional.avg_pool2d(x, 3, 1, 1)
        else:
            pooled = functional.max_pool2d(x, 3, self.stride, 1)
        outputs.append(pooled if self.pooled is None else self.pooled(pooled))
        return torch.cat(outputs, 1)


class Inception(nn.Module):
    """Images [N, 3, H, W], made for 224x224 → logits [N, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Unit(3, 32, (3, 3), 2),
            Unit(32, 64, (3, 3)),
            nn.MaxPool2d(3, 2, 1),
            Unit(64, 192, (3, 3)),
            nn.MaxPool2d(3, 2, 1),
        )
        self.square = nn.Sequential(_square(192, 32), _square(256, 64), _square(288, 64))
        self.reduce1 = Branches(
            [Unit(288, 384, (3, 3), 2), _path(288, (64, 96), (1, 3), last_stride=2)], None, 2
        )
        self.crossed = nn.Sequential(*(_crossed(768, c) for c in (128, 160, 160, 192)))
        self.reduce2 = Branches(
            [_path(768, (192, 320), (1, 3), last_stride=2), _crossed_path(768, 192, 192, 2)],
            None,
            2,
        )
        self.split = nn.Sequential(_split(1280), _split(2048))
        self.classifier = nn.Linear(2048, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.reduce1(self.square(self.stem(x)))
        x = self.split(self.reduce2(self.crossed(x)))
        logits: torch.Tensor = self.classifier(x.mean((2, 3)))
        return logits


class Split(nn.Module):
    """A path that ends in 1x3 and 3x1 side by side."""

    def __init__(self, before: nn.Module, channels: int, each: int) -> None:
        super().__init__()
        self.before = before
        self.wide = Unit(channels, each, (1, 3))
        self.tall = Unit(channels, each, (3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.before(x)
        return torch.cat((self.wide(x), self.tall(x)), 1)


def _path(
    channels_in: int, channels: tuple[int, ...], sizes: tuple[int, ...], last_stride: int = 1
) -> nn.Sequential:
    units: list[nn.Module] = []
    for i, (c, size) in enumerate(zip(channels, sizes, strict=True)):
        stride = last_stride if i == len(sizes) - 1 else 1
        units.append(Unit(channels_in, c, (size, size), stride))
        channels_in = c
    return nn.Sequential(*units)


def _square(channels_in: int, pooled: int) -> Branches:
    paths: list[nn.Module] = [
        Unit(channels_in, 64, (1, 1)),
        _path(channels_in, (48, 64), (1, 5)),
        _path(channels_in, (64, 96, 96), (1, 3, 3)),
    ]
    return Branches(paths, Unit(channels_in, pooled, (1, 1)))


def _crossed_path(channels_in: int, hidden: int, channels: int, stride: int = 1) -> nn.Sequential:
    units: list[nn.Module] = [
        Unit(channels_in, hidden, (1, 1)),
        Unit(hidden, hidden, (1, 7)),
        Unit(hidden, channels, (7, 1)),
    ]
    if stride > 1:
        units.append(Unit(channels, channels, (3, 3), stride))
    return nn.Sequential(*units)


def _crossed(channels_in: int, hidden: int) -> Branches:
    twice = nn.Sequential(
        _crossed_path(channels_in, hidden, hidden),
        Unit(hidden, hidden, (7, 1)),
        Unit(hidden, 192, (1, 7)),
    )
    paths = [Unit(channels_in, 192, (1, 1)), _crossed_path(channels_in, hidden, 192), twice]
    return Branches(paths, Unit(channels_in, 192, (1, 1)))


def _split(channels_in: int) -> Branches:
    paths = [
        Unit(channels_in, 320, (1, 1)),
        Split(Unit(channels_in, 384, (1, 1)), 384, 384),
        Split(_path(channels_in, (448, 384), (1, 3)), 384, 384),
    ]
    return Branches(paths, Unit(channels_in, 192, (1, 1)))
