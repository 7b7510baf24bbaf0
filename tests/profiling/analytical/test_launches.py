"""What a block does, counted by hand."""

from __future__ import annotations

from tdc_deploy.profiling.analytical.launches import Product, most_registers


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
