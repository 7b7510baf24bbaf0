"""What ours is measured against: the dense convolution and the chain of three, by torch. Needs torch.

Each is there eagerly (cuDNN's own search of algorithms is on) and compiled, in both memory formats; the
chain also with its 1x1 convolutions as matrix products. None has biases, which cuDNN would add in further
kernels: ours always has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as fn

from benchmarks.gpu.layers import Case
from benchmarks.gpu.problem import CHUNK, Problem
from tdc_deploy.profiling.analytical.tactics import Arithmetic

FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
COMPILE_MODES = ("off", "default", "max-autotune-no-cudagraphs")
# No competitor's rounding comes near: this finds a wrong one.
LARGEST_ERROR = 2e-2

Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Competitor:
    """One way to compute the layer; `make` prepares it and returns what is to be timed."""

    name: str
    kind: str  # "dense" or "chain"
    make: Callable[[], Callable[[], Tensor]]


@contextmanager
def precision(arithmetic: Arithmetic) -> Iterator[None]:
    """torch's settings for that arithmetic, and cuDNN's search; as they were afterwards."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    cudnn.benchmark = True
    cudnn.allow_tf32 = matmul.allow_tf32 = arithmetic == "tf32"
    try:
        with torch.inference_mode():
            yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


def competitors(problem: Problem, compile_mode: str = "default") -> Iterator[Competitor]:
    """All ways to compute the layer."""
    layer = problem.case.layer

    def dense(x: Tensor, weight: Tensor) -> Tensor:
        return _convolution(x, weight, problem.case)

    def chain(x: Tensor, first: Tensor, core: Tensor, last: Tensor) -> Tensor:
        return fn.conv2d(_convolution(fn.conv2d(x, first), core, problem.case), last)

    def products(x: Tensor, first: Tensor, core: Tensor, last: Tensor) -> Tensor:
        reduced = (x.permute(0, 2, 3, 1) @ first[:, :, 0, 0].T).permute(0, 3, 1, 2)
        convolved = _convolution(reduced, core, problem.case)
        return (convolved.permute(0, 2, 3, 1) @ last[:, :, 0, 0].T).permute(0, 3, 1, 2)

    weights = problem.chain_weights
    forms: list[tuple[str, str, Function, tuple[Tensor, ...]]] = [
        ("dense", "dense", dense, (problem.weight,)),
        ("chain", "chain", chain, weights),
        ("chain", "chain as products", products, weights),
    ]
    assert layer.pads[:2] == layer.pads[2:], "torch pads alike on both sides"
    for kind, name, function, operands in forms:
        for layout, memory_format in FORMATS.items():
            if function is products and layout == "nchw":
                continue
            tensors = [t.contiguous(memory_format=memory_format) for t in (problem.x, *operands)]
            for compiled in (False, True) if compile_mode != "off" else (False,):
                how = "compiled" if compiled else "eager"
                mode = compile_mode if compiled else None
                yield Competitor(f"{name} {layout} {how}", kind, _maker(function, tensors, mode))


def relative_error(problem: Problem, kind: str, y: Tensor) -> float:
    """Of the first images, against float64: ‖y − reference‖ / ‖reference‖; NaN if y holds one."""
    x, case = problem.x[:CHUNK].double(), problem.case
    if kind == "dense":
        reference = _convolution(x, problem.weight.double(), case)
    else:
        first, core, last = (weight.double() for weight in problem.chain_weights)
        reference = fn.conv2d(_convolution(fn.conv2d(x, first), core, case), last)
    return float((y[:CHUNK].double() - reference).norm() / reference.norm())


def _convolution(x: Tensor, weight: Tensor, case: Case) -> Tensor:
    layer = case.layer
    return fn.conv2d(x, weight, None, layer.strides, layer.pads[:2], layer.dilations)


def _maker(
    function: Function, tensors: list[Tensor], mode: str | None
) -> Callable[[], Callable[[], Tensor]]:
    def make() -> Callable[[], Tensor]:
        if mode is None:
            return lambda: function(*tensors)
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, dynamic=False, mode=mode)
        return lambda: compiled(*tensors)

    return make
