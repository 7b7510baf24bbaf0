"""The fused family: one launch, T1 and T2 in shared memory (kernels/fused.cuh)."""

from __future__ import annotations

from tdc_deploy.profiling.analytical import traffic
from tdc_deploy.profiling.analytical.constants import (
    CLUSTER_CYCLES,
    L2_LATENCY,
    PASS_CYCLES,
    REMOTE_CYCLES,
    STEP_CYCLES,
    TICKET_CYCLES,
)
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.launches import (
    CHUNK_PITCH,
    CHUNK_VECTORS,
    ELEMENT_BYTES,
    VECTOR_BYTES,
    Launch,
    Product,
    Stage,
    ceil_div,
    most_registers,
)
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.analytical.tactics import FusedConfig, Tactic

# Ranks and M are shared among the blocks of a split in units of this many channels.
UNIT = 8
FLOAT_BYTES = 4
INTS_PER_VECTOR = VECTOR_BYTES // 4
LARGEST_HALO = 1024  # pixels of a side
ROWS_OF_LDMATRIX = 8
# Loads of sums that are under way at once, where blocks share r_in.
LOADS_AT_ONCE = 4
# Sums of T2 that a thread adds up at a time, where blocks share r_in.
SUMS_AT_ONCE = 4


class FusedPlan:
    """A fused tactic on a shape: the figures that the kernel's Layout and Block compute."""

    def __init__(self, tactic: Tactic, config: FusedConfig, shape: TuckerShape) -> None:
        self.tactic, self.config, self.shape = tactic, config, shape
        self.vector = VECTOR_BYTES // ELEMENT_BYTES[tactic.arithmetic]
        self.halo = shape.halo((config.tile_h, config.tile_w))
        self.halo_pixels = self.halo[0] * self.halo[1]
        self.inside_pixels = self._inside(0) * self._inside(1)
        # Channels of r_in and of M that the busiest block takes.
        self.slice = ceil_div(shape.r_in // UNIT, tactic.parts) * UNIT
        shares_m = tactic.parts if tactic.split == "cluster" else 1
        self.m_slice = ceil_div(ceil_div(shape.m, UNIT), shares_m) * UNIT
        h, w = shape.out_hw
        self.tiles = shape.n * ceil_div(h, config.tile_h) * ceil_div(w, config.tile_w)

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block: struct Layout of kernels/fused_layout.h, term by term."""
        config, shape = self.config, self.shape
        slice_vectors = self.slice // self.vector
        t1 = self.halo[0] * self._row_pitch(slice_vectors | 1)
        t2 = config.pixels * (ceil_div(shape.r_out // self.vector, 2) * 2 | 1)
        cluster = self.tactic.split == "cluster"
        partial = config.pixels * (shape.r_out // INTS_PER_VECTOR + 1) if cluster else 0
        rows = config.stages * config.rows * CHUNK_PITCH
        columns = config.stages * config.columns * CHUNK_PITCH
        table = ceil_div(shape.taps * slice_vectors, CHUNK_VECTORS) * CHUNK_VECTORS
        offsets = 2 * (table // INTS_PER_VECTOR)
        pixels = ceil_div(self.halo_pixels, INTS_PER_VECTOR)
        places = ceil_div(self.halo_pixels + 1, INTS_PER_VECTOR)
        tables = offsets + pixels + places
        return (t1 + max(t2 + partial, rows) + columns + tables) * VECTOR_BYTES

    def _row_pitch(self, pixel_pitch: int) -> int:
        """Vectors from one row of the halo in T1 to the next; its columns are grouped by the stride."""
        stride_h, stride_w = self.shape.strides
        pitch = stride_w * ceil_div(self.halo[1], stride_w) * pixel_pitch
        if self.config.tile_w != ROWS_OF_LDMATRIX // 2:
            return pitch
        # Two rows of four pixels are loaded at once, and hit different banks.
        padded = (pitch + i for i in range(ROWS_OF_LDMATRIX))
        free = (p for p in padded if p * stride_h % ROWS_OF_LDMATRIX == ROWS_OF_LDMATRIX // 2)
        return next(free, pitch)

    def is_legal(self, device: Device) -> bool:
        """fused_is_legal of kernels/fused.cpp; ranks are multiples of 8 here."""
        cluster = self.tactic.split == "cluster"
        if device.compute_capability < (90 if cluster else 80):
            return False
        if self.shape.r_in // UNIT < self.tactic.parts:
            return False
        if cluster and ceil_div(self.shape.m, UNIT) < self.tactic.parts:
            return False
        if max(self.halo) > LARGEST_HALO:
            return False
        return self.shared_bytes <= device.architecture.shared_bytes_per_block

    def launches(self) -> tuple[Launch, ...]:
        """The one launch."""
        config = self.config
        exchange = () if self.tactic.split == "none" else (self._exchange(),)
        most_sums = max(config.rows, config.pixels) * config.columns
        launch = Launch(
            self.tiles * self.tactic.parts,
            config.threads,
            self.shared_bytes,
            most_registers(self.tactic.arithmetic, most_sums, config.threads),
            config.stages,
            self.tactic.arithmetic,
            (self._reduce(), self._core(), *exchange, self._expand()),
        )
        return (launch,)

    @property
    def workspace(self) -> tuple[int, ...]:
        """Bytes of each tensor in the workspace."""
        if self.tactic.split != "ticket":
            return ()
        sums = self.tiles * self.tactic.parts * self.config.pixels * self.shape.r_out
        return (sums * FLOAT_BYTES,)

    def _reduce(self) -> Stage:
        shape, config = self.shape, self.config
        row_passes = ceil_div(self.inside_pixels, config.rows)
        column_passes = ceil_div(self.slice, config.columns)
        bytes_each = ELEMENT_BYTES[self.tactic.arithmetic]
        read = column_passes * self.inside_pixels * shape.c + row_passes * self.slice * shape.c
        return self._stage(
            "reduce",
            self._product(row_passes * column_passes, shape.c, halo=True),
            l2_bytes=read * bytes_each,
            dram_bytes=traffic.reduce_bytes(shape, self.tactic.arithmetic),
        )

    def _core(self) -> Stage:
        shape = self.shape
        depth = shape.taps * self.slice
        bytes_each = ELEMENT_BYTES[self.tactic.arithmetic]
        written = self.config.pixels * shape.r_out * FLOAT_BYTES
        return self._stage(
            "core",
            self._product(ceil_div(shape.r_out, self.config.columns), depth),
            l2_bytes=depth * shape.r_out * bytes_each
            + (written if self.tactic.split == "ticket" else 0),
            dram_bytes=traffic.core_bytes(shape, self.tactic.arithmetic),
        )

    def _expand(self) -> Stage:
        shape = self.shape
        bytes_each = ELEMENT_BYTES[self.tactic.arithmetic]
        pixels = self.config.pixels * (2 if shape.residual else 1)
        return self._stage(
            "expand",
            self._product(ceil_div(self.m_slice, self.config.columns), shape.r_out),
            share=self._last_share,
            l2_bytes=self.m_slice * (shape.r_out + pixels) * bytes_each,
            dram_bytes=traffic.expand_bytes(shape, self.tactic.arithmetic),
            # The last block's pipeline starts anew.
            wait_cycles=L2_LATENCY.value if self.tactic.split == "ticket" else 0.0,
        )

    def _exchange(self) -> Stage:
        """The partial sums of T2 are added up, a few loads at a time."""
        parts, threads = self.tactic.parts, self.config.threads
        waits = ceil_div(parts, LOADS_AT_ONCE)
        sums = self.config.pixels * self.shape.r_out
        moved = sums * FLOAT_BYTES
        if self.tactic.split == "cluster":
            reads = waits * ceil_div(sums // SUMS_AT_ONCE // parts, threads)
            wait = CLUSTER_CYCLES.value + reads * REMOTE_CYCLES.value
            # Read from all blocks and written to all: as if it went through L2.
            return Stage("exchange", wait_cycles=wait, l2_bytes=2 * moved)
        reads = waits * ceil_div(sums // SUMS_AT_ONCE, threads)
        wait = TICKET_CYCLES.value + reads * L2_LATENCY.value
        return Stage("exchange", self._last_share, wait_cycles=wait, l2_bytes=parts * moved)

    @property
    def _last_share(self) -> float:
        return 1 / self.tactic.parts if self.tactic.split == "ticket" else 1.0

    def _inside(self, axis: int) -> int:
        """The most pixels of a tile's halo that are inside the image, along an axis."""
        tile = (self.config.tile_h, self.config.tile_w)[axis]
        size = (self.shape.h, self.shape.w)[axis]
        starts = (
            i * tile * self.shape.strides[axis] - self.shape.pads[axis]
            for i in range(ceil_div(self.shape.out_hw[axis], tile))
        )
        return max(0, *(min(start + self.halo[axis], size) - max(start, 0) for start in starts))

    def _product(self, passes: int, depth: int, halo: bool = False) -> Product:
        """The passes of a stage; in stage 1 they are over the halo, which the pipeline brings too."""
        config = self.config
        rows = config.rows if halo else config.pixels
        tile = (rows, config.columns, config.warps_m, config.warps_n)
        return Product(self.tactic.arithmetic, *tile, passes, depth, brings_rows=halo)

    def _stage(
        self,
        name: str,
        product: Product,
        *,
        l2_bytes: int,
        dram_bytes: int,
        share: float = 1.0,
        wait_cycles: float = 0.0,
    ) -> Stage:
        return Stage(
            name,
            share,
            product.passes * product.turns,
            STEP_CYCLES.value + product.turn_cycles,
            wait_cycles + product.passes * PASS_CYCLES.value,
            product.flops,
            product.shared_bytes,
            product.copies,
            l2_bytes,
            dram_bytes,
        )
