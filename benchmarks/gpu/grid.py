"""Layers on which every tactic is checked: each way in which one can differ from the next."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.gpu.layers import Case
from tdc_deploy.types import ConvLayer, Ranks

Pair = tuple[int, int]
SAME = (1, 1, 1, 1)


@dataclass(frozen=True)
class Check:
    """A layer with its activations' negative slopes, and perhaps a residual."""

    case: Case
    slopes: tuple[float, float, float] = (1.0, 1.0, 1.0)
    residual: bool = False


def _check(
    name: str,
    batch: int,
    hw: Pair,
    channels: Pair,
    ranks: Pair,
    kernel: Pair = (3, 3),
    strides: Pair = (1, 1),
    pads: tuple[int, int, int, int] = SAME,
    dilations: Pair = (1, 1),
    slopes: tuple[float, float, float] = (1.0, 1.0, 1.0),
    residual: bool = False,
) -> Check:
    """`channels` in and out, `ranks` in and out; `pads` are top, left, bottom, right."""
    c_in, c_out = channels
    layer = ConvLayer(name, c_in, c_out, kernel, strides, pads, dilations, 1, "", batch, hw)
    return Check(Case("check", (name,), layer, Ranks(*ranks)), slopes, residual)


# The first ones are small enough for the emulator.
SMALL = (
    _check("plain", 1, (8, 8), (16, 16), (8, 8)),
    _check("odd channels", 2, (7, 9), (19, 21), (16, 8), residual=True, slopes=(0.1, 0.2, 0.3)),
    _check("stride 2", 1, (11, 9), (24, 40), (16, 24), strides=(2, 2), slopes=(0.0, 0.0, 0.0)),
    _check("1x7, padded left", 1, (5, 12), (16, 8), (8, 8), (1, 7), pads=(0, 6, 0, 0)),
    _check("one pixel", 1, (1, 1), (64, 64), (32, 32), residual=True, slopes=(1.0, 1.0, 0.0)),
)
LARGE = (
    _check("5x5, dilated", 2, (20, 17), (24, 24), (8, 16), (5, 5), (1, 1), (4, 4, 4, 4), (2, 2)),
    _check("7x7, stride 2", 1, (33, 35), (16, 32), (8, 8), (7, 7), (2, 2), (3, 3, 3, 3)),
    _check("1x1 core", 3, (9, 10), (40, 5), (16, 16), (1, 1), pads=(0, 0, 0, 0)),
    _check("no padding", 3, (12, 20), (32, 32), (16, 16), strides=(1, 2), pads=(0, 0, 0, 0)),
    _check("ranks over a pass", 1, (14, 14), (264, 136), (136, 72), slopes=(0.2, 0.3, 1.0)),
    _check("bottleneck", 2, (14, 14), (256, 256), (64, 64), residual=True, slopes=(0, 0, 0)),
    _check("ResNet-18, layer1", 8, (56, 56), (64, 64), (32, 32)),
    _check("ResNet-18, layer4", 32, (7, 7), (512, 512), (192, 160), residual=True),
    _check("VGG-16, features.3", 2, (224, 224), (64, 64), (64, 32), slopes=(1.0, 1.0, 0.0)),
    _check("VGG-16, features.34", 8, (14, 14), (512, 512), (192, 96), slopes=(1.0, 1.0, 0.0)),
)
