"""Predicted time of a tactic on a device, and the tactics in the order of it.

Each stage of a kernel takes as long as what limits it on the busiest multiprocessor: arithmetic, shared
memory, issue, L2, or latency where few blocks run. A launch takes as long as its stages one after
another, or as its traffic to DRAM; starting it comes on top. Nothing of this is fitted to measurements:
it ranks tactics, and does not replace timing them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical import constants, traffic
from tdc_deploy.profiling.analytical.channel_first import ChannelFirstPlan
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.fused import FusedPlan
from tdc_deploy.profiling.analytical.launches import Launch, Stage, ceil_div
from tdc_deploy.profiling.analytical.occupancy import WARP, Occupancy, occupancy
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.analytical.tactics import (
    Arithmetic,
    ChannelFirstConfig,
    FusedConfig,
    Tactic,
    all_tactics,
)
from tdc_deploy.profiling.analytical.unfused import UnfusedPlan

# The most entries of the operator's `tactics` attribute.
MOST_TACTICS = 16

PrecisionName = Literal["fp16", "tf32", "fp32"]
PRECISIONS: Mapping[PrecisionName, tuple[Arithmetic, ...]] = {
    "fp16": ("f16",),
    "tf32": ("tf32", "f32"),
    "fp32": ("f32",),
}

Plan: TypeAlias = FusedPlan | UnfusedPlan | ChannelFirstPlan
Resource = Literal["compute", "shared", "issue", "l2", "latency"]
RESOURCES: tuple[Resource, ...] = get_args(Resource)


@dataclass(frozen=True)
class StageTime:
    """Microseconds that a stage takes of each resource; the largest is the stage's time.

    DRAM is apart: its traffic overlaps with other stages, of other blocks.
    """

    name: str
    compute: float
    shared: float
    issue: float
    l2: float
    latency: float
    dram: float

    @property
    def bound(self) -> Resource:
        """The resource that limits it."""
        return max(RESOURCES, key=lambda resource: float(getattr(self, resource)))

    @property
    def us(self) -> float:
        """Microseconds."""
        return float(getattr(self, self.bound))


@dataclass(frozen=True)
class LaunchTime:
    """A launch of `blocks` blocks in `waves` waves; times in microseconds."""

    blocks: int
    waves: int
    occupancy: Occupancy
    shared_bytes: int
    stages: tuple[StageTime, ...]
    start_us: float
    spill_us: float

    @property
    def dram_us(self) -> float:
        """What its traffic to DRAM takes."""
        return self.spill_us + sum(stage.dram for stage in self.stages)

    @property
    def us(self) -> float:
        """All of it."""
        return self.start_us + max(self.dram_us, sum(stage.us for stage in self.stages))


@dataclass(frozen=True)
class Prediction:
    """What a tactic is predicted to take, in microseconds; never a measurement."""

    tactic: Tactic
    launches: tuple[LaunchTime, ...]

    @property
    def us(self) -> float:
        """Microseconds in all."""
        return sum(launch.us for launch in self.launches)


@dataclass(frozen=True)
class Roofline:
    """The least that a layer's arithmetic and its tensors take at a device's full rates."""

    flops: int
    bytes: int
    compute_us: float
    memory_us: float

    @property
    def us(self) -> float:
        """Microseconds: the larger of the two."""
        return max(self.compute_us, self.memory_us)


def roofline(shape: TuckerShape, device: Device, arithmetic: Arithmetic) -> Roofline:
    """The roofline of a layer; no compute time where the device lacks the arithmetic (infinite)."""
    rate = device.flops_per_cycle(arithmetic) * device.multiprocessors
    flops, moved = 2 * shape.macs, traffic.layer_bytes(shape, arithmetic)
    compute = device.microseconds(flops / rate) if rate else float("inf")
    return Roofline(flops, moved, compute, moved / device.dram_gb_s * 1e-3)


def shared_bytes(tactic: Tactic, shape: TuckerShape) -> int:
    """Dynamic shared memory of a block (of the core, in families of three launches)."""
    return _plan(tactic, shape).shared_bytes


def workspace(tactic: Tactic, shape: TuckerShape) -> tuple[int, ...]:
    """Bytes of each tensor that the tactic keeps in the workspace."""
    return _plan(tactic, shape).workspace


def is_legal(tactic: Tactic, shape: TuckerShape, device: Device) -> bool:
    """Whether the tactic can run this layer on that device; as tdc::is_legal of the plugin."""
    return _plan(tactic, shape).is_legal(device)


def predict(tactic: Tactic, shape: TuckerShape, device: Device) -> Prediction:
    """The predicted time.

    Raises:
        TdcError: the tactic is not legal there.
    """
    plan = _plan(tactic, shape)
    if not plan.is_legal(device):
        raise TdcError(
            f"tactic {tactic} cannot run this layer on {device.name}: it takes "
            f"{plan.shared_bytes} bytes of shared memory a block",
            expected="a tactic that `tdc-deploy tactics` lists for the device",
        )
    first, *others = plan.launches()
    spilled = _spilled_bytes(plan, device)
    times = [
        _launch_time(first, device, constants.LAUNCH_US.value, spilled),
        *(_launch_time(launch, device, constants.NEXT_LAUNCH_US.value, 0) for launch in others),
    ]
    return Prediction(tactic, tuple(times))


def rank(
    shape: TuckerShape,
    device: Device,
    arithmetics: Sequence[Arithmetic],
    limit: int | None = MOST_TACTICS,
) -> list[Prediction]:
    """The legal tactics of these arithmetics, fastest first, at most `limit`."""
    predictions = [
        predict(tactic, shape, device)
        for tactic in all_tactics()
        if tactic.arithmetic in arithmetics and is_legal(tactic, shape, device)
    ]
    return sorted(predictions, key=lambda prediction: prediction.us)[:limit]


def tactics_attribute(
    shape: TuckerShape, device: Device, precision: PrecisionName, least: Device | None = None
) -> list[int]:
    """The operator's `tactics`: at most 16 numbers, fastest first on `device`.

    All are legal on `least` too, if that is given: other devices that may run them have no less. An
    unfused tactic is always among them, where there is one: it runs on other devices too, where the
    fused ones may lack shared memory.
    """
    ranked = [
        prediction
        for prediction in rank(shape, device, PRECISIONS[precision], limit=None)
        if least is None or is_legal(prediction.tactic, shape, least)
    ]
    chosen = ranked[:MOST_TACTICS]
    unfused = [p for p in ranked if p.tactic.family == "unfused"]
    if unfused and unfused[0] not in chosen:
        chosen[-1] = unfused[0]
    return [prediction.tactic.number for prediction in chosen]


def _plan(tactic: Tactic, shape: TuckerShape) -> Plan:
    config = tactic.config
    if isinstance(config, FusedConfig):
        return FusedPlan(tactic, config, shape)
    if isinstance(config, ChannelFirstConfig):
        return ChannelFirstPlan(tactic, config, shape)
    return UnfusedPlan(tactic, config, shape)


def _spilled_bytes(plan: Plan, device: Device) -> int:
    """Of the workspace's tensors, what L2 cannot keep until it is read: to DRAM and back."""
    return sum(2 * max(0, size - device.l2_bytes) for size in plan.workspace)


def _launch_time(launch: Launch, device: Device, start_us: float, spilled: int) -> LaunchTime:
    at_once = occupancy(device, launch.threads, launch.shared_bytes, launch.registers)
    if not at_once.blocks:
        raise AssertionError(f"a legal block does not fit: {launch}")
    # The busiest multiprocessor has so many blocks, and so many turns of `at_once` of them.
    blocks = ceil_div(launch.blocks, device.multiprocessors)
    waves = ceil_div(blocks, at_once.blocks)
    fill = constants.DRAM_LATENCY.value + (waves - 1) * constants.L2_LATENCY.value
    start = device.microseconds(fill + waves * constants.BLOCK_CYCLES.value)
    spill_us = spilled / (device.dram_gb_s * constants.DRAM_SHARE.value) * 1e-3
    stages = tuple(_stage_time(stage, launch, device, blocks, waves) for stage in launch.stages)
    return LaunchTime(
        *(launch.blocks, waves, at_once, launch.shared_bytes, stages),
        start_us=start_us + start,
        spill_us=spill_us,
    )


def _stage_time(stage: Stage, launch: Launch, device: Device, blocks: int, waves: int) -> StageTime:
    """The stage on the busiest multiprocessor, which has `blocks` blocks in `waves` turns."""
    working = math.ceil(blocks * stage.share)
    all_blocks = launch.blocks * stage.share
    instructions = stage.copies / WARP * constants.COPY_INSTRUCTIONS.value
    l2_cycles = working * stage.l2_bytes / constants.L2_BYTES_PER_CYCLE.value
    l2_device_us = all_blocks * stage.l2_bytes / (device.l2_gb_s * constants.L2_SHARE.value) * 1e-3
    return StageTime(
        stage.name,
        compute=device.microseconds(working * stage.flops / _flops_per_cycle(launch, device)),
        shared=device.microseconds(
            working * stage.shared_bytes / constants.SHARED_BYTES_PER_CYCLE.value
        ),
        issue=device.microseconds(working * instructions / constants.ISSUE_PER_CYCLE.value),
        l2=max(device.microseconds(l2_cycles), l2_device_us),
        dram=stage.dram_bytes / (device.dram_gb_s * constants.DRAM_SHARE.value) * 1e-3,
        latency=device.microseconds(_latency_cycles(stage, launch.depth, waves)),
    )


def _latency_cycles(stage: Stage, depth: int, waves: int) -> float:
    """Cycles that a stage takes at least, one wave after another; the first finds a cold L2."""

    def wave(memory_latency: float) -> float:
        turn = max(stage.step_cycles, memory_latency / max(1, depth - 1))
        return stage.steps * turn + stage.wait_cycles

    later = (waves - 1) * wave(constants.L2_LATENCY.value)
    return wave(constants.DRAM_LATENCY.value) + later


def _flops_per_cycle(launch: Launch, device: Device) -> float:
    if launch.arithmetic == "f32":
        share = constants.FMA_SHARE
    elif device.compute_capability in (90, 100):
        share = constants.MMA_SHARE_HOPPER
    else:
        share = constants.MMA_SHARE
    return device.flops_per_cycle(launch.arithmetic) * share.value
