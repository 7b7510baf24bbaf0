"""What the model takes for granted about every GPU, and where each number comes from.

None is measured on the kernels themselves yet. A "guess" is of the right order of magnitude, no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["document", "driver", "derived", "guess"]
"""document: published by the maker. driver: asked of the GPU. derived: computed from such. guess."""


@dataclass(frozen=True)
class Constant:
    """A number, its unit, and where it comes from."""

    name: str
    value: float
    unit: str
    origin: Origin
    source: str


GUIDE = "CUDA C++ Programming Guide"
HOPPER_STUDY = "after the microbenchmarks of Luo et al., arXiv 2402.13499"

SHARED_BYTES_PER_CYCLE = Constant(
    "shared memory bandwidth of a multiprocessor",
    *(128, "bytes/cycle", "document"),
    f"{GUIDE}: 32 banks of 4 bytes",
)
L2_BYTES_PER_CYCLE = Constant(
    "L2 bandwidth of a multiprocessor",
    *(64, "bytes/cycle", "document"),
    "NVIDIA A100 architecture white paper; taken for every GPU",
)
L2_LATENCY = Constant("latency of L2", 265, "cycles", "guess", HOPPER_STUDY)
DRAM_LATENCY = Constant("latency of DRAM", 480, "cycles", "guess", HOPPER_STUDY)
DRAM_SHARE = Constant("share of the DRAM bandwidth that is reached", 0.85, "", "guess", "usual")
L2_SHARE = Constant("share of the L2 bandwidth that is reached", 0.7, "", "guess", "usual")
MMA_SHARE = Constant(
    "share of the tensor rate that mma.sync reaches", 0.9, "", "guess", "before Hopper"
)
MMA_SHARE_HOPPER = Constant(
    "the same where only wgmma reaches it", 0.62, "", "guess", f"Hopper, {HOPPER_STUDY}"
)
FMA_SHARE = Constant("share of the FMA rate that is reached", 0.8, "", "guess", "usual")

STEP_CYCLES = Constant("barrier of a pipeline step", 50, "cycles", "guess", "")
MMA_STEP_CYCLES = Constant(
    "ldmatrix and mma that wait for each other, 32 bytes of depth",
    *(45, "cycles", "guess"),
    f"latency of mma {HOPPER_STUDY}",
)
FMA_STEP_CYCLES = Constant(
    "loads and FMAs that wait for each other, 16 bytes of depth", 50, "cycles", "guess", ""
)
COPY_INSTRUCTIONS = Constant(
    "instructions for 16 bytes that a thread copies", 15, "", "guess", "addresses, bounds"
)
ISSUE_PER_CYCLE = Constant(
    "instructions of warps that a multiprocessor issues", 4, "/cycle", "document", GUIDE
)
PASS_CYCLES = Constant("storing the sums of a pass", 250, "cycles", "guess", "")
BLOCK_CYCLES = Constant("start and end of a block", 900, "cycles", "guess", "tables, parameters")
REMOTE_CYCLES = Constant(
    "latency of shared memory of another block of the cluster",
    *(180, "cycles", "guess"),
    HOPPER_STUDY,
)
CLUSTER_CYCLES = Constant("the two barriers of a cluster", 600, "cycles", "guess", "")
TICKET_CYCLES = Constant("fence, ticket and barriers", 1500, "cycles", "guess", "")
CHANNEL_CYCLES = Constant(
    "a channel of TDC's core kernel: its weights from L2", 270, "cycles", "guess", "one latency"
)
LAUNCH_US = Constant("launch of a kernel in a CUDA graph", 2.2, "us", "guess", "2 to 3 us")
NEXT_LAUNCH_US = Constant(
    "each further kernel that waits for the one before", 1.2, "us", "guess", "1 to 1.5 us"
)

CONSTANTS = tuple(value for value in list(globals().values()) if isinstance(value, Constant))
