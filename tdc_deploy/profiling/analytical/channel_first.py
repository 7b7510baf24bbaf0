"""The channel-first family: TDC's core kernel between two 1x1 convolutions, in fp32."""

from __future__ import annotations

from tdc_deploy.profiling.analytical import traffic
from tdc_deploy.profiling.analytical.constants import CHANNEL_CYCLES, PASS_CYCLES, STEP_CYCLES
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.launches import (
    Launch,
    Product,
    Stage,
    ceil_div,
    most_registers,
)
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.analytical.tactics import ChannelFirstConfig, Tactic

FLOAT_BYTES = 4
MOST_THREADS = 256  # of a block of the core kernel; more channels take turns

# The 1x1 convolutions' tile and its threads.
TILE = 64
TILE_THREADS = 256
POINTWISE_SHARED_BYTES = 2 * 16 * (TILE + 4) * FLOAT_BYTES


class ChannelFirstPlan:
    """A channel-first tactic on a shape."""

    def __init__(self, tactic: Tactic, config: ChannelFirstConfig, shape: TuckerShape) -> None:
        self.tactic, self.config, self.shape = tactic, config, shape
        self.halo = shape.halo((config.tile_h, config.tile_w))

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block of the core kernel, its input tile, or of a 1x1 convolution."""
        core = self.config.channels * self.halo[0] * self.halo[1] * FLOAT_BYTES
        return max(core, POINTWISE_SHARED_BYTES)

    def is_legal(self, device: Device) -> bool:
        """channel_first_is_legal of kernels/channel_first.cpp."""
        return self.shared_bytes <= device.architecture.shared_bytes_per_block

    @property
    def workspace(self) -> tuple[int, int]:
        """Bytes of T1 and of T2."""
        t1 = self.shape.in_pixels * self.shape.r_in * FLOAT_BYTES
        return t1, self.shape.out_pixels * self.shape.r_out * FLOAT_BYTES

    def launches(self) -> tuple[Launch, ...]:
        """The three launches."""
        shape = self.shape
        first, last = traffic.reduce_bytes(shape, "f32"), traffic.expand_bytes(shape, "f32")
        return (
            _pointwise("reduce", shape.in_pixels, shape.r_in, shape.c, first),
            self._core(),
            _pointwise("expand", shape.out_pixels, shape.m, shape.r_out, last),
        )

    def _core(self) -> Launch:
        config, shape = self.config, self.shape
        h, w = shape.out_hw
        tiles = shape.n * ceil_div(h, config.tile_h) * ceil_div(w, config.tile_w)
        tile = config.tile_h * config.tile_w
        inputs = config.channels * self.halo[0] * self.halo[1]
        weights = config.channels * shape.taps * shape.r_out
        threads = min(ceil_div(shape.r_out, 32) * 32, MOST_THREADS)
        turns = ceil_div(shape.r_out, threads)
        stage = Stage(
            "core",
            wait_cycles=PASS_CYCLES.value + config.channels * CHANNEL_CYCLES.value,
            flops=2 * tile * config.channels * shape.taps * threads * turns,
            # A warp reads every input once, and all its lanes get the same.
            shared_bytes=turns * threads // 32 * inputs * 32 * FLOAT_BYTES,
            # Sums are added to T2 in L2: read and written.
            l2_bytes=(inputs + weights + 2 * tile * shape.r_out) * FLOAT_BYTES,
            dram_bytes=traffic.core_bytes(shape, "f32"),
        )
        return Launch(
            tiles * ceil_div(shape.r_in, config.channels),
            threads,
            self.shared_bytes,
            most_registers("f32", tile * threads, threads) // 2,
            2,
            "f32",
            (stage,),
        )


def _pointwise(name: str, pixels: int, channels: int, depth: int, dram_bytes: int) -> Launch:
    product = Product("f32", TILE, TILE, 2, TILE_THREADS // 64, 1, depth, brings_rows=True)
    stage = Stage(
        name,
        steps=product.turns,
        step_cycles=STEP_CYCLES.value + product.turn_cycles,
        wait_cycles=PASS_CYCLES.value,
        flops=product.flops,
        shared_bytes=product.shared_bytes,
        copies=product.copies,
        l2_bytes=(2 * TILE * depth + TILE * TILE) * FLOAT_BYTES,
        dram_bytes=dram_bytes,
    )
    return Launch(
        ceil_div(pixels, TILE) * ceil_div(channels, TILE),
        TILE_THREADS,
        POINTWISE_SHARED_BYTES,
        most_registers("f32", TILE * TILE, TILE_THREADS),
        2,
        "f32",
        (stage,),
    )
