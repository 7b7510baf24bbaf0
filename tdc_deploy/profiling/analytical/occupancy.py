"""How many blocks a multiprocessor runs at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tdc_deploy.profiling.analytical.devices import RESERVED_SHARED_BYTES, Device

# Registers are handed out to warps in units of this many (CUDA's occupancy calculator).
REGISTER_UNIT = 256
WARP = 32

Limit = Literal["threads", "blocks", "shared memory", "registers"]


@dataclass(frozen=True)
class Occupancy:
    """Blocks that a multiprocessor runs at a time, and what keeps it from running more."""

    blocks: int
    limit: Limit


def occupancy(
    device: Device, threads: int, shared_bytes: int, registers_per_thread: int
) -> Occupancy:
    """The occupancy of a kernel with that many threads and dynamic shared bytes a block."""
    architecture = device.architecture
    reserved = RESERVED_SHARED_BYTES if device.compute_capability >= 80 else 0
    warps = -(-threads // WARP)
    registers_per_warp = -(-registers_per_thread * WARP // REGISTER_UNIT) * REGISTER_UNIT
    shared = shared_bytes + reserved
    limits: dict[Limit, int] = {
        "threads": architecture.threads // (warps * WARP),
        "blocks": architecture.blocks,
        "shared memory": architecture.shared_bytes // shared if shared else architecture.blocks,
        "registers": architecture.registers // (registers_per_warp * warps),
    }
    limit = min(limits, key=lambda name: limits[name])
    return Occupancy(limits[limit], limit)
