"""What this GPU reaches at best, measured, and the floor that it sets for a layer. Needs torch."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.gpu.layers import Case
from benchmarks.gpu.natives import precision
from benchmarks.gpu.problem import storage_type
from tdc_deploy.profiling.analytical.tactics import ARITHMETICS, Arithmetic

COPY_BYTES = 2 << 30
# Multiply-accumulates of fp32 without tensor cores are some ten times slower.
MATRIX_SIZES = {"f16": 8192, "tf32": 8192, "f32": 4096}
REPEATS = 10


@dataclass(frozen=True)
class Ceilings:
    """Bytes a second of a large copy, reads and writes; FLOPs a second of a large matrix product."""

    bytes_per_s: float
    flops_per_s: dict[str, float]

    def floor_us(self, case: Case, arithmetic: Arithmetic) -> float:
        """No kernel of the chain runs faster: its arithmetic, and each tensor moved once."""
        element = 2 if arithmetic == "f16" else 4
        arithmetic_s = 2 * case.chain_macs / self.flops_per_s[arithmetic]
        return 1e6 * max(arithmetic_s, case.chain_bytes(element) / self.bytes_per_s)


def measure_ceilings() -> Ceilings:
    """A few seconds of copies and products of random values."""
    return Ceilings(_bandwidth(), {name: _rate(name) for name in ARITHMETICS})


def _bandwidth() -> float:
    free, _ = torch.cuda.mem_get_info()
    count = min(COPY_BYTES, free // 8) // 4
    source = torch.randn(count, device="cuda")
    target = torch.empty_like(source)
    return 2 * 4 * count / _seconds(lambda: target.copy_(source))


def _rate(arithmetic: Arithmetic) -> float:
    size = MATRIX_SIZES[arithmetic]
    a, b = (torch.randn(size, size, device="cuda").to(storage_type(arithmetic)) for _ in range(2))
    with precision(arithmetic):
        return 2 * size**3 / _seconds(lambda: a @ b)


def _seconds(run: Callable[[], object]) -> float:
    """The median of repeated runs."""
    times = []
    for _ in range(REPEATS + 3):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        run()
        after.record()
        torch.cuda.synchronize()
        times.append(1e-3 * before.elapsed_time(after))
    return statistics.median(times[3:])
