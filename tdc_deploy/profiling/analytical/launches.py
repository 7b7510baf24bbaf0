"""What a tactic does on a GPU, counted: the launches, and what a block does in each stage."""

from __future__ import annotations

from dataclasses import dataclass

from tdc_deploy.profiling.analytical.constants import FMA_STEP_CYCLES, MMA_STEP_CYCLES
from tdc_deploy.profiling.analytical.tactics import Arithmetic

# Bytes that a copy moves, and copies of a row that a step of the pipeline brings (chunks.h).
VECTOR_BYTES = 16
CHUNK_VECTORS = 8
# Vectors from one row of a chunk to the next: odd, so that eight rows hit all banks once.
CHUNK_PITCH = CHUNK_VECTORS + 1
CHUNK_BYTES = CHUNK_VECTORS * VECTOR_BYTES

ELEMENT_BYTES: dict[Arithmetic, int] = {"f16": 2, "tf32": 4, "f32": 4}

# The kernels' launch bounds (blocks_of in arithmetic.cuh): where a thread holds fewer sums than
# MANY_SUMS, registers allow so many threads a multiprocessor; else, one block.
MANY_SUMS = 64
FIT_THREADS: dict[Arithmetic, int] = {"f16": 512, "tf32": 512, "f32": 384}
REGISTERS = 65536
MOST_REGISTERS = 255


def ceil_div(a: int, b: int) -> int:
    """The quotient, rounded up."""
    return -(-a // b)


def most_registers(arithmetic: Arithmetic, sums: int, threads: int) -> int:
    """The most registers that a thread may have, in a block that holds `sums` fp32 sums."""
    blocks = FIT_THREADS[arithmetic] // threads if sums // threads < MANY_SUMS else 1
    return min(MOST_REGISTERS, REGISTERS // (threads * blocks))


@dataclass(frozen=True)
class Step:
    """How a warp multiplies (arithmetic.cuh): vectors of depth at a time, and what they cost.

    `row_reads`, `column_reads`: bytes of bandwidth that shared memory takes for a byte of the operand;
    above 1 where lanes that share a 16-byte load do not fill it.
    """

    vectors: int
    cycles: float
    row_reads: int
    column_reads: int


MMA_STEP = Step(2, MMA_STEP_CYCLES.value, 1, 1)
FMA_STEP = Step(1, FMA_STEP_CYCLES.value, 2, 4)
STEPS: dict[Arithmetic, Step] = {"f16": MMA_STEP, "tf32": MMA_STEP, "f32": FMA_STEP}


@dataclass(frozen=True)
class Stage:
    """What one block does in one stage, padding included; `dram_bytes` are of all blocks together.

    `share` of the blocks do it. `steps` turns of the pipeline follow one another, `step_cycles` each
    at least; `wait_cycles` come on top. `copies` are of 16 bytes from global to shared memory.
    """

    name: str
    share: float = 1.0
    steps: int = 0
    step_cycles: float = 0.0
    wait_cycles: float = 0.0
    flops: int = 0
    shared_bytes: int = 0
    copies: int = 0
    l2_bytes: int = 0
    dram_bytes: int = 0


@dataclass(frozen=True)
class Launch:
    """One kernel: its grid, what a block takes, and its stages; `depth` chunks are under way."""

    blocks: int
    threads: int
    shared_bytes: int
    registers: int
    depth: int
    arithmetic: Arithmetic
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Product:
    """Passes of `rows` x `columns` sums by warps_m x warps_n warps over `depth` elements each.

    `brings_rows`: the pipeline brings both operands, not the columns alone.
    """

    arithmetic: Arithmetic
    rows: int
    columns: int
    warps_m: int
    warps_n: int
    passes: int
    depth: int
    brings_rows: bool

    @property
    def vectors(self) -> int:
        """Vectors of a row's depth."""
        return ceil_div(self.depth * ELEMENT_BYTES[self.arithmetic], VECTOR_BYTES)

    @property
    def turns(self) -> int:
        """Turns of the pipeline in a pass."""
        return ceil_div(self.vectors, CHUNK_VECTORS)

    @property
    def steps(self) -> int:
        """Steps of warps in a pass."""
        return ceil_div(self.vectors, STEPS[self.arithmetic].vectors)

    @property
    def flops(self) -> int:
        """FLOPs of all passes, two per multiply-add."""
        vectors = self.steps * STEPS[self.arithmetic].vectors
        depth = vectors * VECTOR_BYTES // ELEMENT_BYTES[self.arithmetic]
        return 2 * self.passes * self.rows * self.columns * depth

    @property
    def copies(self) -> int:
        """Copies to shared memory in all passes."""
        brought = self.columns + (self.rows if self.brings_rows else 0)
        return self.passes * self.turns * CHUNK_VECTORS * brought

    @property
    def shared_bytes(self) -> int:
        """Bytes to and from shared memory in all passes."""
        step = STEPS[self.arithmetic]
        reads = self.warps_n * self.rows * step.row_reads
        reads += self.warps_m * self.columns * step.column_reads
        read = self.passes * self.steps * step.vectors * VECTOR_BYTES * reads
        return read + self.copies * VECTOR_BYTES

    @property
    def turn_cycles(self) -> float:
        """Cycles of a turn whose operands are there, on an idle multiprocessor."""
        return STEPS[self.arithmetic].cycles * self.steps / self.turns
