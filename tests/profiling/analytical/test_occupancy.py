"""Occupancies worked out by hand from the limits in the CUDA C++ Programming Guide."""

from __future__ import annotations

import pytest

from tdc_deploy.profiling.analytical.chips import find_device
from tdc_deploy.profiling.analytical.occupancy import Occupancy, occupancy

KIB = 1024

CASES = [
    # 2048 threads are 16 blocks of 128; 128 * 64 registers are 8192 of 65536: 8 blocks.
    ("A100", 128, 0, 64, Occupancy(8, "registers")),
    ("A100", 128, 0, 32, Occupancy(16, "threads")),
    # A warp's 33 * 32 = 1056 registers are handed out as 1280: 65536 / (4 * 1280) = 12.8.
    ("A100", 128, 0, 33, Occupancy(12, "registers")),
    # One warp a block: 64 would fit, 32 are allowed.
    ("A100", 32, 0, 16, Occupancy(32, "blocks")),
    # 164 KiB hold three times 48 KiB and the 1 KiB that the system keeps of each block.
    ("A100", 128, 48 * KIB, 32, Occupancy(3, "shared memory")),
    # 54 KiB: 3 * 55 = 165 KiB are 1 KiB too many.
    ("A100", 128, 54 * KIB, 32, Occupancy(2, "shared memory")),
    ("A100", 128, 163 * KIB, 32, Occupancy(1, "shared memory")),
    ("H200", 256, 112 * KIB, 64, Occupancy(2, "shared memory")),
    # 255 registers are handed out as 256: 256 * 256 = 65536.
    ("H200", 256, 0, 255, Occupancy(1, "registers")),
    # 1536 threads: 4 blocks of 384.
    ("L4", 384, 0, 32, Occupancy(4, "threads")),
    ("L4", 64, 0, 16, Occupancy(24, "threads")),
    # Nothing is kept of a block on Turing.
    ("T4", 128, 32 * KIB, 32, Occupancy(2, "shared memory")),
    # 40 threads take two warps.
    ("T4", 40, 0, 32, Occupancy(16, "threads")),
]


@pytest.mark.parametrize(("name", "threads", "shared", "registers", "expected"), CASES)
def test_occupancy(
    name: str, threads: int, shared: int, registers: int, expected: Occupancy
) -> None:
    assert occupancy(find_device(name), threads, shared, registers) == expected


def test_a_block_that_does_not_fit_has_none() -> None:
    assert occupancy(find_device("A100"), 128, 200 * KIB, 32).blocks == 0
    assert occupancy(find_device("A100"), 1024, 0, 128).blocks == 0
