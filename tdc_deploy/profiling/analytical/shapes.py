"""The shapes of one fused Tucker convolution."""

from __future__ import annotations

from dataclasses import dataclass

from tdc_deploy.errors import TdcError
from tdc_deploy.types import ConvLayer, Ranks

# Graph surgery pads ranks to whole vectors of fp16.
RANK_STEP = 8

Pair = tuple[int, int]


@dataclass(frozen=True)
class TuckerShape:
    """1x1 C→r_in, kxk r_in→r_out, 1x1 r_out→M [+ R], on n images of h x w pixels.

    `pads` are ONNX's (top, left, bottom, right). Ranks are multiples of 8.

    Raises:
        TdcError: sizes that are impossible, or ranks that are no multiples of 8.
    """

    n: int
    h: int
    w: int
    c: int
    m: int
    r_in: int
    r_out: int
    kernel: Pair = (3, 3)
    strides: Pair = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilations: Pair = (1, 1)
    residual: bool = False

    def __post_init__(self) -> None:
        self.as_layer()
        ranks = (self.r_in, self.r_out)
        if any(rank < 1 or rank % RANK_STEP for rank in ranks):
            raise TdcError(
                f"ranks {self.r_in} and {self.r_out}",
                expected=f"multiples of {RANK_STEP}",
                fix="round them up: the graph is padded to that with zero weights",
            )

    def halo(self, tile: Pair) -> Pair:
        """Height and width of the input pixels under a tile of output pixels."""
        h, w = (
            (size - 1) * stride + (kernel - 1) * dilation + 1
            for size, stride, kernel, dilation in zip(
                tile, self.strides, self.kernel, self.dilations, strict=True
            )
        )
        return h, w

    @classmethod
    def of_layer(cls, layer: ConvLayer, ranks: Ranks, residual: bool = False) -> TuckerShape:
        """The chain that replaces a convolution; ranks are rounded up to multiples of 8."""
        r_in, r_out = (-(-rank // RANK_STEP) * RANK_STEP for rank in (ranks.r_in, ranks.r_out))
        sizes = (layer.batch, *layer.in_hw, layer.c_in, layer.c_out, r_in, r_out)
        return cls(
            *sizes, layer.kernel, layer.strides, layer.pads, layer.dilations, residual=residual
        )

    def as_layer(self, dtype: str = "float32") -> ConvLayer:
        """The convolution that the chain replaces."""
        geometry = (self.kernel, self.strides, self.pads, self.dilations)
        return ConvLayer("", self.c, self.m, *geometry, 1, dtype, self.n, (self.h, self.w))

    @property
    def out_hw(self) -> Pair:
        """The output's (height, width) in pixels."""
        return self.as_layer().out_hw

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def in_pixels(self) -> int:
        """Input pixels of all images."""
        return self.n * self.h * self.w

    @property
    def out_pixels(self) -> int:
        """Output pixels of all images."""
        return self.n * self.out_hw[0] * self.out_hw[1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the three convolutions, nothing padded and nothing done twice."""
        reduce = self.in_pixels * self.c * self.r_in
        core = self.out_pixels * self.taps * self.r_in * self.r_out
        return reduce + core + self.out_pixels * self.r_out * self.m
