"""A detector in the manner of YOLOv5s: cross-stage partial blocks, SiLU, a pyramid, three outputs."""

from __future__ import annotations

import torch
from torch import nn

# Boxes (4), objectness (1) and classes of COCO (80) for each of 3 anchors.
SCORES = 3 * (4 + 1 + 80)


class Unit(nn.Module):
    """A convolution, BatchNorm and SiLU."""

    def __init__(self, channels_in: int, channels: int, size: int = 1, stride: int = 1) -> None:
        super().__init__()
        pad = (size - 1) // 2
        self.conv = nn.Conv2d(channels_in, channels, size, stride, pad, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.silu(self.bn(self.conv(x)))


class Partial(nn.Module):
    """Half of the channels goes through bottlenecks of 1x1 and 3x3, half does not."""

    def __init__(self, channels_in: int, channels: int, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        half = channels // 2
        self.through = Unit(channels_in, half)
        self.past = Unit(channels_in, half)
        self.blocks = nn.ModuleList(
            nn.Sequential(Unit(half, half), Unit(half, half, 3)) for _ in range(depth)
        )
        self.join = Unit(channels, channels)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.through(x)
        for block in self.blocks:
            y = y + block(y) if self.shortcut else block(y)
        joined: torch.Tensor = self.join(torch.cat((y, self.past(x)), 1))
        return joined


class Pyramid(nn.Module):
    """Max pooling at four scales."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = Unit(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.join = Unit(2 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scales = [self.reduce(x)]
        for _ in range(3):
            scales.append(self.pool(scales[-1]))
        joined: torch.Tensor = self.join(torch.cat(scales, 1))
        return joined


class Yolo(nn.Module):
    """Images [N, 3, H, W], H and W multiples of 32 → scores [N, 255, H/s, W/s] for s = 8, 16, 32."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        a, b, c, d, e = (width * 2**i for i in range(5))
        self.to4 = nn.Sequential(Unit(3, a, 6, 2), Unit(a, b, 3, 2), Partial(b, b, 1))
        self.to8 = nn.Sequential(Unit(b, c, 3, 2), Partial(c, c, 2))
        self.to16 = nn.Sequential(Unit(c, d, 3, 2), Partial(d, d, 3))
        self.to32 = nn.Sequential(Unit(d, e, 3, 2), Partial(e, e, 1), Pyramid(e), Unit(e, d))
        self.up = nn.Upsample(scale_factor=2)
        self.top16 = nn.Sequential(Partial(2 * d, d, 1, shortcut=False), Unit(d, c))
        self.top8 = Partial(2 * c, c, 1, shortcut=False)
        self.down16 = Unit(c, c, 3, 2)
        self.out16 = Partial(2 * c, d, 1, shortcut=False)
        self.down32 = Unit(d, d, 3, 2)
        self.out32 = Partial(2 * d, e, 1, shortcut=False)
        self.heads = nn.ModuleList(nn.Conv2d(channels, SCORES, 1) for channels in (c, d, e))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        at8 = self.to8(self.to4(x))
        at16 = self.to16(at8)
        at32 = self.to32(at16)
        merged16 = self.top16(torch.cat((self.up(at32), at16), 1))
        merged8 = self.top8(torch.cat((self.up(merged16), at8), 1))
        low16 = self.out16(torch.cat((self.down16(merged8), merged16), 1))
        low32 = self.out32(torch.cat((self.down32(low16), at32), 1))
        features = (merged8, low16, low32)
        return tuple(head(y) for head, y in zip(self.heads, features, strict=True))
