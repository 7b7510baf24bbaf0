"""The unfused family: three convolutions, T1 and T2 in the workspace (kernels/unfused.cuh)."""

from __future__ import annotations

from tdc_deploy.profiling.analytical import traffic
from tdc_deploy.profiling.analytical.constants import PASS_CYCLES, STEP_CYCLES
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.launches import (
    CHUNK_PITCH,
    ELEMENT_BYTES,
    VECTOR_BYTES,
    Launch,
    Product,
    Stage,
    ceil_div,
    most_registers,
)
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.analytical.tactics import Tactic, UnfusedConfig


class UnfusedPlan:
    """An unfused tactic on a shape."""

    def __init__(self, tactic: Tactic, config: UnfusedConfig, shape: TuckerShape) -> None:
        self.tactic, self.config, self.shape = tactic, config, shape

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block: struct Layout of kernels/unfused_layout.h."""
        config = self.config
        chunks = config.stages * (config.rows + config.columns) * CHUNK_PITCH
        return (chunks + config.rows) * VECTOR_BYTES

    def is_legal(self, device: Device) -> bool:
        """unfused_is_legal of kernels/unfused.cpp; ranks are multiples of 8 here."""
        enough = self.shared_bytes <= device.architecture.shared_bytes_per_block
        return device.compute_capability >= 80 and enough

    def launches(self) -> tuple[Launch, ...]:
        """The three launches."""
        shape, arithmetic = self.shape, self.tactic.arithmetic
        core_depth = shape.taps * shape.r_in
        first = traffic.reduce_bytes(shape, arithmetic)
        core = traffic.core_bytes(shape, arithmetic)
        last = traffic.expand_bytes(shape, arithmetic)
        return (
            self._launch("reduce", shape.in_pixels, shape.r_in, shape.c, first),
            self._launch("core", shape.out_pixels, shape.r_out, core_depth, core),
            self._launch("expand", shape.out_pixels, shape.m, shape.r_out, last),
        )

    @property
    def workspace(self) -> tuple[int, int]:
        """Bytes of T1 and of T2."""
        shape, bytes_each = self.shape, ELEMENT_BYTES[self.tactic.arithmetic]
        t1 = shape.in_pixels * shape.r_in * bytes_each
        return t1, shape.out_pixels * shape.r_out * bytes_each

    def _launch(self, name: str, pixels: int, channels: int, depth: int, dram_bytes: int) -> Launch:
        config, arithmetic = self.config, self.tactic.arithmetic
        column_blocks = ceil_div(traffic.pitch(channels, arithmetic), config.columns)
        product = Product(
            arithmetic,
            *(config.rows, config.columns, config.warps_m, config.warps_n),
            passes=1,
            depth=depth,
            brings_rows=True,
        )
        columns = min(config.columns, channels)
        written = config.rows * columns * (2 if name == "expand" and self.shape.residual else 1)
        moved = (config.rows + columns) * depth + written
        stage = Stage(
            name,
            steps=product.turns,
            step_cycles=STEP_CYCLES.value + product.turn_cycles,
            wait_cycles=PASS_CYCLES.value,
            flops=product.flops,
            shared_bytes=product.shared_bytes,
            copies=product.copies,
            l2_bytes=moved * ELEMENT_BYTES[arithmetic],
            dram_bytes=dram_bytes,
        )
        return Launch(
            ceil_div(pixels, config.rows) * column_blocks,
            config.threads,
            self.shared_bytes,
            most_registers(arithmetic, config.rows * config.columns, config.threads),
            config.stages,
            arithmetic,
            (stage,),
        )
