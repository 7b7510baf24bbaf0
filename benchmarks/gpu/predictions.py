"""What the analytical model says of a layer: predictions, never measurements."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from benchmarks.gpu.layers import Case
from tdc_deploy.profiling.analytical.chips import find_device
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.driver import this_device
from tdc_deploy.profiling.analytical.model import rank, roofline
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.analytical.tactics import Arithmetic


@dataclass(frozen=True)
class Predicted:
    """The tactic that the model expects to be fastest, its time, and the least time by data sheets."""

    tactic: str
    number: int
    us: float
    roofline_us: float


def predicted(
    case: Case, arithmetic: Arithmetic, device: Device, *, channel_first: bool = False
) -> Predicted | None:
    """The model's first pick among our tactics, or among those of TDC's scheme; None if none is legal."""
    shape = TuckerShape.of_layer(case.layer, case.ranks)
    for prediction in rank(shape, device, (arithmetic,), limit=None):
        if (prediction.tactic.family == "channel-first") == channel_first:
            tactic = prediction.tactic
            roof = roofline(shape, device, arithmetic).us
            return Predicted(str(tactic), tactic.number, prediction.us, roof)
    return None


def first_pick(case: Case, arithmetic: Arithmetic) -> int | None:
    """The number of the model's first pick for this machine's GPU."""
    found = predicted(case, arithmetic, _this_device())
    return None if found is None else found.number


def named_device(name: str) -> Device:
    """The GPU of that name, as the model knows it."""
    return find_device(name)


@cache
def _this_device() -> Device:
    return this_device()
