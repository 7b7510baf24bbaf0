"""What `tdc-deploy tactics` prints: ranked tactics with their predicted times, and on what they rest."""

from __future__ import annotations

from dataclasses import dataclass

from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.constants import CONSTANTS, Constant
from tdc_deploy.profiling.analytical.devices import Device, device_constants
from tdc_deploy.profiling.analytical.model import (
    PRECISIONS,
    LaunchTime,
    PrecisionName,
    Prediction,
    Roofline,
    rank,
    roofline,
    tactics_attribute,
)
from tdc_deploy.profiling.analytical.shapes import TuckerShape

NOTE = "predicted by the analytical model, not measured"


@dataclass(frozen=True)
class StageRow:
    """A stage: what it takes of what limits it, and of DRAM; microseconds."""

    name: str
    us: float
    bound: str
    dram_us: float


@dataclass(frozen=True)
class TacticRow:
    """A tactic; times in microseconds, `start_us` of all launches together."""

    number: int
    name: str
    predicted_us: float
    start_us: float
    blocks: tuple[int, ...]
    waves: tuple[int, ...]
    blocks_per_multiprocessor: tuple[int, ...]
    limits: tuple[str, ...]
    shared_bytes: tuple[int, ...]
    stages: tuple[StageRow, ...]


@dataclass(frozen=True)
class TacticsReport:
    """The ranking for one layer; `attribute` is the operator's `tactics` for this device."""

    note: str
    device: str
    precision: str
    shape: TuckerShape
    roofline: Roofline
    legal: int
    tactics: tuple[TacticRow, ...]
    attribute: tuple[int, ...]
    constants: tuple[Constant, ...]


def tactics_report(
    shape: TuckerShape, device: Device, precision: PrecisionName, top: int
) -> TacticsReport:
    """The fastest `top` tactics.

    Raises:
        TdcError: no tactic is legal, or the precision or `top` is none.
    """
    if precision not in PRECISIONS:
        raise TdcError(f"precision is {precision!r}", expected=", ".join(PRECISIONS))
    if top < 1:
        raise TdcError(f"top is {top}", expected="at least 1")
    arithmetics = PRECISIONS[precision]
    ranked = rank(shape, device, arithmetics, limit=None)
    if not ranked:
        raise TdcError(
            f"no tactic in {precision} runs this layer on {device.name} "
            f"(compute capability {device.compute_capability / 10})",
            expected="compute capability 8.0 or newer for fp16 and tf32",
        )
    return TacticsReport(
        NOTE,
        device.name,
        precision,
        shape,
        roofline(shape, device, arithmetics[0]),
        len(ranked),
        tuple(_row(prediction) for prediction in ranked[:top]),
        tuple(tactics_attribute(shape, device, precision)),
        (*device_constants(device), *CONSTANTS),
    )


def _row(prediction: Prediction) -> TacticRow:
    launches = prediction.launches
    return TacticRow(
        prediction.tactic.number,
        str(prediction.tactic),
        prediction.us,
        sum(launch.start_us for launch in launches),
        tuple(launch.blocks for launch in launches),
        tuple(launch.waves for launch in launches),
        tuple(launch.occupancy.blocks for launch in launches),
        tuple(launch.occupancy.limit for launch in launches),
        tuple(launch.shared_bytes for launch in launches),
        tuple(row for launch in launches for row in _stages(launch)),
    )


def _stages(launch: LaunchTime) -> list[StageRow]:
    return [StageRow(stage.name, stage.us, stage.bound, stage.dram) for stage in launch.stages]
