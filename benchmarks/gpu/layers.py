"""The layers that are measured: published networks with the rank tables that TDC's authors released.

benchmarks/data/tdc_ranks.json holds those tables, ranks as [r_out, r_in] (L. Xiang et al., PPoPP 2023, the
authors' code). Geometry: ResNet (He et al., CVPR 2016) with the stride in the 3x3 convolution, and
VGG-16 (Simonyan and Zisserman, ICLR 2015) with BatchNorm, both at 224x224.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tdc_deploy.types import ConvLayer, Ranks

RANK_FILE = Path(__file__).parents[1] / "data" / "tdc_ranks.json"
MODELS = ("resnet18", "resnet50", "vgg16")
CORES = "cores"

_RESNET18_BLOCKS = (2, 2, 2, 2)
_RESNET50_BLOCKS = (3, 4, 6, 3)
_VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

# (C, N, height = width) of the 18 cores that TDC's authors report, and the outer channels (in, out) of a
# layer that has such a core: of the tables' networks where one does, else of DenseNet's, 128 to 32.
_CORE_SHAPES = (
    (64, 32, 224, 64, 64),
    (64, 32, 112, 128, 128),
    (32, 32, 56, 64, 64),
    (64, 32, 56, 64, 64),
    (64, 64, 56, 256, 256),
    (32, 32, 28, 128, 32),
    (64, 32, 28, 128, 128),
    (96, 64, 28, 128, 128),
    (160, 96, 28, 256, 512),
    (192, 96, 28, 512, 512),
    (32, 32, 14, 128, 32),
    (64, 32, 14, 256, 256),
    (128, 96, 14, 256, 256),
    (192, 96, 14, 512, 512),
    (32, 32, 7, 128, 32),
    (64, 32, 7, 128, 32),
    (96, 64, 7, 512, 512),
    (192, 160, 7, 512, 512),
)


@dataclass(frozen=True)
class Case:
    """A convolution and the ranks that its chain has; `names` are the layers of the model that are so."""

    model: str
    names: tuple[str, ...]
    layer: ConvLayer
    ranks: Ranks

    @property
    def name(self) -> str:
        """Such as "resnet18/layer1.0.conv1"."""
        return f"{self.model}/{self.names[0]}"

    def at_batch(self, batch: int) -> Case:
        """The same with another batch size."""
        return replace(self, layer=replace(self.layer, batch=batch))

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of the convolution itself."""
        h, w = self.layer.out_hw
        kh, kw = self.layer.kernel
        return self.layer.batch * h * w * kh * kw * self.layer.c_in * self.layer.c_out

    @property
    def chain_macs(self) -> int:
        """Multiply-accumulates of the chain."""
        layer, r_in, r_out = self.layer, self.ranks.r_in, self.ranks.r_out
        (h, w), (h_out, w_out), (kh, kw) = layer.in_hw, layer.out_hw, layer.kernel
        outputs = h_out * w_out * r_out * (kh * kw * r_in + layer.c_out)
        return layer.batch * (h * w * layer.c_in * r_in + outputs)

    def chain_bytes(self, element: int) -> int:
        """Bytes of X, Y and the weights, each once; `element` is the size of one number."""
        layer, r_in, r_out = self.layer, self.ranks.r_in, self.ranks.r_out
        (h, w), (h_out, w_out), (kh, kw) = layer.in_hw, layer.out_hw, layer.kernel
        activations = layer.batch * (h * w * layer.c_in + h_out * w_out * layer.c_out)
        weights = r_in * layer.c_in + kh * kw * r_in * r_out + layer.c_out * r_out
        return element * (activations + weights)


def cases(model: str) -> list[Case]:
    """The layers of a network, those that are the same once; or the 18 cores, at batch 1."""
    if model == CORES:
        return _cores()
    convolutions = {"resnet18": _resnet18, "resnet50": _resnet50, "vgg16": _vgg16}[model]
    table_name = {"vgg16": "vgg16_bn"}.get(model, model)
    table = json.loads(RANK_FILE.read_text())["models"][table_name]
    found: dict[tuple[ConvLayer, Ranks], list[str]] = {}
    for name, layer in convolutions():
        ranks = table.get(f"{name}.weight")
        if ranks is not None:
            r_out, r_in = ranks
            found.setdefault((layer, Ranks(r_in, r_out)), []).append(name)
    return [Case(model, tuple(names), *key) for key, names in found.items()]


def _conv(c_in: int, c_out: int, size: int, stride: int = 1) -> ConvLayer:
    """A 3x3 convolution of padding 1 on size x size pixels."""
    pads = (1, 1, 1, 1)
    square = (size, size)
    return ConvLayer("", c_in, c_out, (3, 3), (stride, stride), pads, (1, 1), 1, "", 1, square)


def _resnet18() -> Iterator[tuple[str, ConvLayer]]:
    for stage, block, width, size in _blocks(_RESNET18_BLOCKS):
        name = f"layer{stage}.{block}"
        halves = block == 0 and stage > 1
        if halves:
            yield f"{name}.conv1", _conv(width // 2, width, 2 * size, 2)
        else:
            yield f"{name}.conv1", _conv(width, width, size)
        yield f"{name}.conv2", _conv(width, width, size)


def _resnet50() -> Iterator[tuple[str, ConvLayer]]:
    for stage, block, width, size in _blocks(_RESNET50_BLOCKS):
        halves = block == 0 and stage > 1
        conv = _conv(width, width, 2 * size, 2) if halves else _conv(width, width, size)
        yield f"layer{stage}.{block}.conv2", conv


def _blocks(counts: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """(stage from 1, block from 0, channels, height = width of the output)."""
    for stage, count in enumerate(counts, start=1):
        for block in range(count):
            yield stage, block, 64 << (stage - 1), 56 >> (stage - 1)


def _vgg16() -> Iterator[tuple[str, ConvLayer]]:
    """Convolution, BatchNorm and ReLU count one place each in `features`, a pooling one."""
    place, channels, size = 0, 3, 224
    for widths in _VGG16_STAGES:
        for width in widths:
            yield f"features.{place}", _conv(channels, width, size)
            place, channels = place + 3, width
        place, size = place + 1, size // 2


def _cores() -> list[Case]:
    return [
        Case(CORES, (f"{c}-{n}-{size}",), _conv(c_in, c_out, size), Ranks(r_in=c, r_out=n))
        for c, n, size, c_in, c_out in _CORE_SHAPES
    ]
