#!/usr/bin/env python3
"""Plants a fault in a copy of the kernels.

    plant.py FAULT KERNELS OUT

Copies the folder KERNELS to OUT/kernels, with one text replaced in one file. Fails if that text is
not there exactly once: the kernels have changed, and the fault must be written anew.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NamedTuple


class Fault(NamedTuple):
    file: str
    right: str
    wrong: str


FAULTS = {
    "none": Fault("fused.cuh", "#pragma once", "#pragma once"),
    # Synchronization.
    "ring_barrier": Fault(
        "fused.cuh",
        "cp_async_wait<Config::kStages - 2>();\n        __syncthreads();",
        "cp_async_wait<Config::kStages - 2>();",
    ),
    "ring_wait": Fault(
        "fused.cuh",
        "cp_async_wait<Config::kStages - 2>();",
        "cp_async_wait<Config::kStages - 1>();",
    ),
    "cluster_barrier": Fault(
        "fused.cuh",
        "void meet_in_cluster() {\n        cluster_sync();",
        "void meet_in_cluster() {\n        __syncthreads();",
    ),
    "counter_kept": Fault(
        "fused.cuh", "if (ticket == parts - 1) p.counters[tile] = 0;", "if (false) ticket = 0;"
    ),
    # Bounds.
    "weights_overrun": Fault(
        "fused.cuh",
        "const bool there = column < end && count > 0;",
        "const bool there = count > 0;",
    ),
    "padding_lanes": Fault(
        "fused.cuh", "there ? p.c - channel : 0", "there ? Arithmetic::pitch(p.c) - channel : 0"
    ),
    # Places.
    "halo_shifted": Fault(
        "fused.cuh", "x0 = tile_x * p.stride_w - p.pad_left;", "x0 = tile_x * p.stride_w;"
    ),
    "fragments_swapped": Fault(
        "arithmetic.cuh",
        "right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);",
        "right[j / 2][j % 2 * 2 + 1], right[j / 2][j % 2 * 2]);",
    ),
    # The channel-first family.
    "core_barrier": Fault("core.cuh", "load();\n        __syncthreads();", "load();"),
    "t2_not_cleared": Fault("pointwise.cuh", "        set_zeros();\n", ""),
}


def main(name: str, kernels: str, out: str) -> None:
    fault = FAULTS[name]
    source = (Path(kernels) / fault.file).read_text()
    if source.count(fault.right) != 1:
        sys.exit(
            f'fault "{name}": expected its text once in {fault.file}, found it '
            f"{source.count(fault.right)} times; write it anew in {__file__}:\n{fault.right}"
        )
    copy = Path(out) / "kernels"
    shutil.copytree(kernels, copy, dirs_exist_ok=True)
    (copy / fault.file).write_text(source.replace(fault.right, fault.wrong))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
