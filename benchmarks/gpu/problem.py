"""A chain with random operands, and what each element of its output may be. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as fn

from benchmarks.gpu.layers import Case
from tdc_deploy.profiling.analytical.tactics import Arithmetic

# Images that the reference takes at a time: float64 intermediates are large.
CHUNK = 4
# Rounding error of one fp32 addition or product; tensor cores may truncate, hence not half of it.
UNIT = 2.0**-23


@dataclass
class Problem:
    """Operands that the arithmetic's type holds exactly: x [n, c, h, w], residual or None, the factors
    first [r_in, c], core [kh, kw, r_out, r_in], last [m, r_out] and their biases, all on one device.
    """

    case: Case
    arithmetic: Arithmetic
    slopes: tuple[float, float, float]
    x: Tensor
    residual: Tensor | None
    first: Tensor
    first_bias: Tensor
    core: Tensor
    core_bias: Tensor
    last: Tensor
    bias: Tensor

    @property
    def weight(self) -> Tensor:
        """A dense kernel [m, c, kh, kw] of the layer's shape: what the factors make together."""
        product = torch.einsum(
            "ma,yxab,bc->mcyx", self.last.float(), self.core.float(), self.first.float()
        )
        return product.to(self.x.dtype)

    @property
    def chain_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """The factors as convolution weights [out, in, kh, kw]."""
        return (
            self.first[:, :, None, None],
            self.core.permute(2, 3, 0, 1).contiguous(),
            self.last[:, :, None, None],
        )


def storage_type(arithmetic: Arithmetic) -> torch.dtype:
    """The type of the tensors."""
    return torch.float16 if arithmetic == "f16" else torch.float32


def make_problem(
    case: Case,
    arithmetic: Arithmetic,
    *,
    device: str = "cuda",
    seed: int = 0,
    residual: bool = False,
    biases: bool = True,
    slopes: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Problem:
    """Normal values, the weights scaled so that activations stay near 1; without `biases`, zeros."""
    generator = torch.Generator(device).manual_seed(seed)
    dtype, layer, ranks = storage_type(arithmetic), case.layer, case.ranks

    def draw(*shape: int, deviation: float = 1.0) -> Tensor:
        values = torch.randn(shape, generator=generator, device=device)
        return (values * deviation).to(dtype)

    kh, kw = layer.kernel
    bias = 0.5 if biases else 0.0
    return Problem(
        case,
        arithmetic,
        slopes,
        x=draw(layer.batch, layer.c_in, *layer.in_hw),
        residual=draw(layer.batch, layer.c_out, *layer.out_hw) if residual else None,
        first=draw(ranks.r_in, layer.c_in, deviation=layer.c_in**-0.5),
        first_bias=draw(ranks.r_in, deviation=bias),
        core=draw(kh, kw, ranks.r_out, ranks.r_in, deviation=(ranks.r_in * kh * kw) ** -0.5),
        core_bias=draw(ranks.r_out, deviation=bias),
        last=draw(layer.c_out, ranks.r_out, deviation=ranks.r_out**-0.5),
        bias=draw(layer.c_out, deviation=bias),
    )


def worst_excess(problem: Problem, y: Tensor) -> float:
    """The largest distance of `y` [n, m, h, w] from the reference, as a multiple of the error that the
    arithmetic is allowed there: at most 1 is right. NaN if y holds one.
    """
    worst = torch.zeros((), dtype=torch.float64, device=y.device)
    for start in range(0, len(y), CHUNK):
        part = slice(start, start + CHUNK)
        low, high = bounds(problem, part)
        middle, half = (low + high) / 2, (high - low) / 2
        distance = (y[part].double() - middle).abs()
        excess = torch.where(distance == 0, 0.0, distance / half)
        worst = torch.maximum(worst, excess.amax())  # of NaN and a number, NaN
    return float(worst)


def bounds(problem: Problem, images: slice) -> tuple[Tensor, Tensor]:
    """The least and the largest value that each element of Y of these images may have.

    Products round their operands as the arithmetic says, in float64; a sum of k terms in fp32, in any
    order, is off by at most k u sum|term| (N. Higham, "Accuracy and Stability of Numerical Algorithms",
    section 4.2); errors of T1 and T2 reach the next sum times the sizes of its weights; activation and
    rounding are monotonic, so an interval goes through them by its ends.
    """
    p, layer = problem, problem.case.layer
    operand, stored = _operand_rounding(p.arithmetic), _storage_rounding(p.arithmetic)
    first, core, last = (operand(w.double()) for w in p.chain_weights)
    residual = None if p.residual is None else p.residual[images].double()
    x = operand(p.x[images].double())
    t1 = _stage((x, x), first, p.first_bias, p.slopes[0], operand)
    t2 = _stage(_padded(t1, layer.pads), core, p.core_bias, p.slopes[1], operand, layer)
    return _stage(t2, last, p.bias, p.slopes[2], stored, added=residual)


Interval = tuple[Tensor, Tensor]
Rounding = Callable[[Tensor], Tensor]


def _stage(
    given: Interval,
    weight: Tensor,
    bias: Tensor,
    slope: float,
    rounding: Rounding,
    geometry: object = None,
    added: Tensor | None = None,
) -> Interval:
    """One convolution of the chain, on intervals; `geometry` has the strides and dilations."""
    stride, dilation = getattr(geometry, "strides", 1), getattr(geometry, "dilations", 1)
    low, high = given
    middle, error = (low + high) / 2, (high - low) / 2

    def conv(values: Tensor, kernel: Tensor) -> Tensor:
        return fn.conv2d(values, kernel, stride=stride, dilation=dilation)

    offset = bias.double()[:, None, None]
    terms = weight[0].numel() + 3  # and the bias, the residual, the activation's product
    value = conv(middle, weight) + offset
    size = conv(middle.abs() + error, weight.abs()) + offset.abs()
    if added is not None:
        value, size = value + added, size + added.abs()
    radius = conv(error, weight.abs()) + terms * UNIT * size
    ends = (fn.leaky_relu(value - radius, slope), fn.leaky_relu(value + radius, slope))
    return rounding(ends[0]), rounding(ends[1])


def _padded(interval: Interval, pads: tuple[int, int, int, int]) -> Interval:
    top, left, bottom, right = pads
    low, high = (fn.pad(end, (left, right, top, bottom)) for end in interval)
    return low, high


def _operand_rounding(arithmetic: Arithmetic) -> Rounding:
    return {"f16": _to_f16, "tf32": _to_tf32, "f32": _unchanged}[arithmetic]


def _storage_rounding(arithmetic: Arithmetic) -> Rounding:
    return _to_f16 if arithmetic == "f16" else _unchanged


def _to_f16(values: Tensor) -> Tensor:
    return values.half().double()


def _to_tf32(values: Tensor) -> Tensor:
    """A significand of 11 bits, ties away from zero."""
    fraction, exponent = torch.frexp(values)
    scaled = fraction.abs() * 2**11
    return torch.ldexp(torch.floor(scaled + 0.5) * fraction.sign(), exponent - 11)


def _unchanged(values: Tensor) -> Tensor:
    return values
