"""The plain values that the stages hand to each other; frozen, and validated when they are made."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from tdc_deploy.errors import TdcError

Form = Literal["dense", "tucker2", "tucker_in", "tucker_out", "svd"]
"""How a convolution is computed.

dense: as it came. tucker2: 1x1 C→r_in, kxk r_in→r_out, 1x1 r_out→M. tucker_in: 1x1 C→r_in, kxk r_in→M.
tucker_out: kxk C→r_out, 1x1 r_out→M. svd: a 1x1 convolution as 1x1 C→r, 1x1 r→M, with r_in = r_out = r.
"""

Implementation = Literal["native", "fused"]
Precision = Literal["fp32", "fp16", "int8"]
FORMS: tuple[Form, ...] = get_args(Form)


def check_number(name: str, value: object, *, positive: bool = False) -> None:
    """Raise TdcError unless `value` is a finite number of at least 0, or above 0 if `positive`."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    least = sys.float_info.min if positive else 0
    if not (is_number and least <= value < math.inf):  # type: ignore[operator]
        limit = "above 0" if positive else "of at least 0"
        raise TdcError(f"{name} is {value!r}", expected=f"a finite number {limit}")


@dataclass(frozen=True)
class Ranks:
    """Tucker-2 ranks: r_in of the input-channel mode, r_out of the output-channel mode."""

    r_in: int
    r_out: int

    def __post_init__(self) -> None:
        for name in ("r_in", "r_out"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise TdcError(f"{name} is {value!r}", expected="a whole number of at least 1")


@dataclass(frozen=True)
class ConvLayer:
    """One 2-D convolution at the shape it runs at.

    `pads` are ONNX's (top, left, bottom, right); `in_hw` is the input's (height, width) in pixels.
    """

    name: str
    c_in: int
    c_out: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    groups: int
    dtype: str
    batch: int
    in_hw: tuple[int, int]

    def __post_init__(self) -> None:
        positive = (self.c_in, self.c_out, *self.kernel, *self.strides, *self.dilations)
        if min(*positive, self.groups, self.batch, *self.in_hw) < 1 or min(self.pads) < 0:
            raise TdcError(f"impossible convolution: {self}", expected="positive sizes, pads >= 0")
        if min(self.out_hw) < 1:
            raise TdcError(
                f"convolution {self.name!r} has an empty output {self.out_hw} for input {self.in_hw}",
                expected="an input at least as large as the dilated kernel",
            )

    @property
    def out_hw(self) -> tuple[int, int]:
        """The output's (height, width) in pixels."""
        top, left, bottom, right = self.pads
        span_h = self.dilations[0] * (self.kernel[0] - 1) + 1
        span_w = self.dilations[1] * (self.kernel[1] - 1) + 1
        return (
            (self.in_hw[0] + top + bottom - span_h) // self.strides[0] + 1,
            (self.in_hw[1] + left + right - span_w) // self.strides[1] + 1,
        )

    @property
    def is_pointwise(self) -> bool:
        """True for a 1x1 kernel, whatever its stride."""
        return self.kernel == (1, 1)


Decomposition = tuple[Form, Ranks | None]


@dataclass(frozen=True)
class Candidate:
    """One way to compute a layer, with what it costs.

    `error` is the share of the kernel's energy that is lost, ‖W−W̃‖²/‖W‖², or with statistics of the
    layer's inputs, of its output's energy on them; `latency_ms` is the layer's measured time alone, None
    where it was not measured.
    """

    form: Form
    ranks: Ranks | None = None
    implementation: Implementation = "native"
    precision: Precision = "fp32"
    error: float = 0.0
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise TdcError(f"form is {self.form!r}", expected=f"one of {', '.join(FORMS)}")
        if self.implementation not in get_args(Implementation):
            raise TdcError(f"implementation is {self.implementation!r}", expected="native or fused")
        if self.precision not in get_args(Precision):
            raise TdcError(
                f"precision is {self.precision!r}",
                expected=f"one of {', '.join(get_args(Precision))}",
            )
        if not isinstance(self.ranks, (Ranks, type(None))):
            raise TdcError(f"ranks is {self.ranks!r}", expected="r_in and r_out, each a number")
        if (self.ranks is None) != (self.form == "dense"):
            raise TdcError(
                f"form {self.form} with ranks {self.ranks}",
                expected="r_in and r_out for every form but dense, none for dense",
            )
        if self.form == "svd" and self.ranks is not None and self.ranks.r_in != self.ranks.r_out:
            raise TdcError(f"svd with ranks {self.ranks}", expected="r_in equal to r_out")
        if self.implementation == "fused" and self.form != "tucker2":
            raise TdcError(
                f"form {self.form} marked fused", expected="fused only for tucker2, else native"
            )
        check_number("error", self.error)
        if self.latency_ms is not None:
            check_number("latency_ms", self.latency_ms, positive=True)

    @property
    def decomposition(self) -> Decomposition:
        """Form and ranks, whatever computes it."""
        return self.form, self.ranks

    def __str__(self) -> str:
        if self.ranks is None:
            return "dense"
        if self.form == "svd":
            return f"svd {self.ranks.r_in}"
        return f"{self.form} {self.ranks.r_in}→{self.ranks.r_out}"


DENSE = Candidate("dense")


@dataclass(frozen=True)
class Timing:
    """A latency in milliseconds: median and percentiles of `runs` timed runs after warm-up."""

    median: float
    p10: float
    p90: float
    p95: float
    p99: float
    runs: int

    def __post_init__(self) -> None:
        if not (self.median > 0 and self.runs > 0):
            raise ValueError(f"not a timing: {self}")

    @property
    def spread(self) -> float:
        """(p90 − p10) / median: about 0.05 on a quiet machine."""
        return (self.p90 - self.p10) / self.median


@dataclass(frozen=True)
class Ratio:
    """time(after) / time(before) of paired runs, with the bounds of its 95% interval."""

    value: float
    lower: float
    upper: float
    before: Timing
    after: Timing


def from_mapping(cls: type[Any], data: Any, where: str) -> dict[str, Any]:
    """Check that `data` is a mapping with no key that the dataclass `cls` lacks; return it as a dict."""
    if not isinstance(data, dict):
        raise TdcError(f"{where} is {type(data).__name__}", expected="an object with named fields")
    known = {field.name for field in fields(cls)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise TdcError(
            f"{where} has unknown field {unknown[0]!r}",
            expected=f"fields of {', '.join(sorted(known))}",
        )
    return dict(data)
