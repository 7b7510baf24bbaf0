"""GPUs, as the model sees them.

What is per multiprocessor follows from the compute capability (`architecture_of`); the rest is in a
chip's documents (chips.py) or is asked of the driver (driver.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.constants import GUIDE, Constant, Origin
from tdc_deploy.profiling.analytical.tactics import Arithmetic

KIB = 1 << 10

# Shared memory that the system keeps of each block from compute capability 8.0 on (GUIDE).
RESERVED_SHARED_BYTES = KIB


@dataclass(frozen=True)
class Architecture:
    """A multiprocessor's limits, and its dense rates in FLOPs per cycle (two per multiply-add).

    Limits: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". Rates: the
    white papers' TFLOPS over multiprocessors and clock, tensor cores with fp32 accumulation.
    """

    compute_capability: int
    shared_bytes: int
    shared_bytes_per_block: int
    threads: int
    blocks: int
    f16_flops: int
    tf32_flops: int
    f32_flops: int
    registers: int = 65536


ARCHITECTURES = {
    architecture.compute_capability: architecture
    for architecture in (
        Architecture(75, 64 * KIB, 64 * KIB, 1024, 16, 1024, 0, 128),
        Architecture(80, 164 * KIB, 163 * KIB, 2048, 32, 2048, 1024, 128),
        Architecture(86, 100 * KIB, 99 * KIB, 1536, 16, 1024, 512, 256),
        Architecture(87, 164 * KIB, 163 * KIB, 1536, 16, 2048, 1024, 256),
        Architecture(89, 100 * KIB, 99 * KIB, 1536, 24, 1024, 512, 256),
        Architecture(90, 228 * KIB, 227 * KIB, 2048, 32, 4096, 2048, 256),
        # Blackwell's rates through mma.sync are guesses: Hopper's and Ada's.
        Architecture(100, 228 * KIB, 227 * KIB, 2048, 32, 4096, 2048, 256),
        Architecture(120, 100 * KIB, 99 * KIB, 1536, 24, 1024, 512, 256),
    )
}


@dataclass(frozen=True)
class Device:
    """One GPU. Rates are dense, in TFLOPS at the boost clock; bandwidths in GB/s (10^9 bytes).

    `source` says where the chip's figures come from; `guessed` names the fields that are guesses.
    """

    name: str
    architecture: Architecture
    multiprocessors: int
    clock_mhz: float
    dram_gb_s: float
    l2_bytes: int
    l2_gb_s: float
    f16_tflops: float
    tf32_tflops: float
    f32_tflops: float
    source: str
    origin: Origin = "document"
    guessed: tuple[str, ...] = ("l2_gb_s",)

    def __post_init__(self) -> None:
        positive = (self.multiprocessors, self.clock_mhz, self.dram_gb_s, self.l2_bytes)
        rates = (self.l2_gb_s, self.f16_tflops, self.f32_tflops)
        if not all(0 < value < math.inf for value in (*positive, *rates)) or self.tf32_tflops < 0:
            raise TdcError(f"impossible device: {self}", expected="positive figures")

    @property
    def compute_capability(self) -> int:
        """10 * major + minor."""
        return self.architecture.compute_capability

    def flops_per_cycle(self, arithmetic: Arithmetic) -> float:
        """FLOPs of one multiprocessor in one cycle of the boost clock; 0 where it has no such units."""
        tflops = {"f16": self.f16_tflops, "tf32": self.tf32_tflops, "f32": self.f32_tflops}
        return tflops[arithmetic] * 1e6 / (self.multiprocessors * self.clock_mhz)

    def microseconds(self, cycles: float) -> float:
        """Cycles of the boost clock as microseconds."""
        return cycles / self.clock_mhz


def architecture_of(compute_capability: int) -> Architecture:
    """The architecture, or for one that is not listed, the newest listed before it.

    Raises:
        TdcError: it is older than all that are listed.
    """
    older = [known for known in ARCHITECTURES if known <= compute_capability]
    if not older:
        raise TdcError(
            f"compute capability {compute_capability / 10}",
            expected=f"{min(ARCHITECTURES) / 10} or newer",
        )
    return replace(ARCHITECTURES[max(older)], compute_capability=compute_capability)


def device_constants(device: Device) -> list[Constant]:
    """A device's figures with where each comes from, to be printed."""
    architecture = device.architecture
    chip: list[tuple[str, float, str]] = [
        ("multiprocessors", device.multiprocessors, ""),
        ("clock_mhz", device.clock_mhz, "MHz"),
        ("dram_gb_s", device.dram_gb_s, "GB/s"),
        ("l2_bytes", device.l2_bytes, "bytes"),
        ("l2_gb_s", device.l2_gb_s, "GB/s"),
        ("f16_tflops", device.f16_tflops, "TFLOPS"),
        ("tf32_tflops", device.tf32_tflops, "TFLOPS"),
        ("f32_tflops", device.f32_tflops, "TFLOPS"),
    ]
    limits: list[tuple[str, float, str]] = [
        ("shared memory of a multiprocessor", architecture.shared_bytes, "bytes"),
        ("shared memory of a block", architecture.shared_bytes_per_block, "bytes"),
        ("registers of a multiprocessor", architecture.registers, ""),
        ("threads of a multiprocessor", architecture.threads, ""),
        ("blocks of a multiprocessor", architecture.blocks, ""),
    ]
    found = []
    for figure in chip:
        if figure[0] in device.guessed:
            found.append(Constant(*figure, "guess", ""))
        else:
            found.append(Constant(*figure, device.origin, device.source))
    source = GUIDE if device.origin == "document" else device.source
    return [*found, *(Constant(*limit, device.origin, source) for limit in limits)]
