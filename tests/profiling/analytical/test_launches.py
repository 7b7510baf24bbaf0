"""What a block does, counted by hand."""

from __future__ import annotations

from tdc_deploy.profiling.analytical.constants import (
    CLUSTER_CYCLES,
    L2_LATENCY,
    REMOTE_CYCLES,
    TICKET_CYCLES,
)
from tdc_deploy.profiling.analytical.fused import FusedPlan
from tdc_deploy.profiling.analytical.launches import Launch, Product, most_registers
from tdc_deploy.profiling.analytical.tactics import FusedConfig, Split, Tactic
from tests.profiling.analytical.shapes import LAYER4


def test_a_product_in_fp16() -> None:
    """2 passes of 32 x 64 sums by 2 x 2 warps, 72 deep: 9 vectors, 2 turns, 5 steps of 2 vectors."""
    product = Product("f16", 32, 64, 2, 2, passes=2, depth=72, brings_rows=True)
    assert (product.vectors, product.turns, product.steps) == (9, 2, 5)
    assert product.flops == 2 * 2 * 32 * 64 * 80
    assert product.copies == 2 * 2 * 8 * (32 + 64)
    # Each of the two columns of warps reads all rows, each of the two rows of warps all columns.
    reads = 2 * 10 * 16 * (2 * 32 + 2 * 64)
    assert product.shared_bytes == reads + 16 * product.copies


def test_rows_that_are_there_are_not_brought() -> None:
    product = Product("f16", 32, 64, 2, 2, passes=1, depth=64, brings_rows=False)
    assert product.copies == 8 * 64


def test_a_product_in_fp32_takes_a_vector_at_a_time() -> None:
    """20 deep: 5 vectors of 4; rows cost twice their bytes of bandwidth, columns four times."""
    product = Product("f32", 16, 64, 1, 4, passes=1, depth=20, brings_rows=False)
    assert (product.vectors, product.turns, product.steps) == (5, 1, 5)
    assert product.flops == 2 * 16 * 64 * 20
    assert product.shared_bytes == 5 * 16 * (4 * 16 * 2 + 64 * 4) + 16 * 8 * 64


def test_registers_are_what_the_launch_bounds_leave() -> None:
    """Where a thread holds fewer than 64 sums: 512 threads, or 384 on CUDA cores, in whole blocks."""
    assert most_registers("f16", 8 * 8 * 64, 256) == 65536 // 512
    assert most_registers("tf32", 4 * 4 * 64, 128) == 65536 // 512
    assert most_registers("f32", 4 * 4 * 64, 128) == 65536 // 384
    assert most_registers("f32", 8 * 8 * 64, 256) == 255
    assert most_registers("f16", 8 * 16 * 128, 256) == 255


def fused(config: FusedConfig, split: Split = "none", parts: int = 1) -> Launch:
    tactic = Tactic("fused", "f16", 0, config, split, parts)
    (launch,) = FusedPlan(tactic, config, LAYER4).launches()
    return launch


def test_stage_1_may_hold_the_most_sums() -> None:
    """16 pixels of 128 columns are 16 sums a thread, 64 of the halo are 64."""
    assert fused(FusedConfig(4, 4, 48, 1, 4, 128, 4)).registers == 65536 // 512
    assert fused(FusedConfig(4, 4, 64, 1, 4, 128, 4)).registers == 255


def test_sums_of_a_split_are_waited_for_four_at_a_time() -> None:
    """16 pixels of 160 channels, four at a time, by 128 threads: 5 turns, each with
    two loads after each other for 8 parts; a cluster shares the turns."""
    config = FusedConfig(4, 4, 48, 1, 4, 64, 4)
    assert [stage.name for stage in fused(config).stages] == ["reduce", "core", "expand"]
    ticket = fused(config, "ticket", 8).stages[2]
    assert ticket.wait_cycles == TICKET_CYCLES.value + 5 * 2 * L2_LATENCY.value
    assert (ticket.share, ticket.l2_bytes) == (1 / 8, 8 * 4 * 16 * 160)
    cluster = fused(config, "cluster", 8).stages[2]
    assert cluster.wait_cycles == CLUSTER_CYCLES.value + 1 * 2 * REMOTE_CYCLES.value
    assert (cluster.share, cluster.l2_bytes) == (1, 2 * 4 * 16 * 160)
