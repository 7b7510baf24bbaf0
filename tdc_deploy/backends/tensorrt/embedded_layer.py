"""What the embedded plugin knows of a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tdc_deploy.profiling.analytical.launches import ceil_div
from tdc_deploy.profiling.analytical.shapes import Pair

Type = Literal["FP16", "FP32"]
LAYOUTS: Mapping[Type, str] = {"FP16": "HWC8", "FP32": "HWC"}


@dataclass(frozen=True)
class LaunchedKernel:
    """A compiled kernel: the file of its PTX, its output pixels a block, threads and shared bytes."""

    ptx: str
    tile: Pair
    threads: int
    shared_bytes: int


@dataclass(frozen=True)
class EmbeddedLayer:
    """The type of a layer's tensors, the window of its core, and its kernels by tactic.

    `pads` are ONNX's.
    """

    type: Type
    kernel: Pair
    strides: Pair
    pads: tuple[int, int, int, int]
    dilations: Pair
    kernels: Mapping[int, LaunchedKernel]

    def out_size(self, axis: int, size: Any) -> Any:
        """Output pixels along an axis of `size` pixels, which may be TensorRT's symbolic expression."""
        reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
        extra = self.pads[axis] + self.pads[axis + 2] - reach
        # Expressions are not given negative constants: TensorRT says of none what it does with them.
        moved = size + extra if extra >= 0 else size - -extra
        return moved // self.strides[axis] + 1


def blocks(
    kernel: LaunchedKernel, n: Any, h_out: Any, w_out: Any, cdiv: Callable[..., Any] = ceil_div
) -> Any:
    """Blocks of a launch on n images; sizes may be symbolic, divided by TensorRT's own `cdiv`."""
    return n * cdiv(h_out, kernel.tile[0]) * cdiv(w_out, kernel.tile[1])


def kernel_integers(x: Any, first: Any, core: Any, last: Any, y: Any) -> tuple[Any, ...]:
    """The integers of plugins/embedded/tucker_conv.cuh, in its order, from the tensors' shapes.

    h, w, c, h_out, w_out, m, r_in, r_out; X and Y are [n, channels, h, w].
    """
    return x[2], x[3], x[1], y[2], y[3], last[0], first[0], core[2]
