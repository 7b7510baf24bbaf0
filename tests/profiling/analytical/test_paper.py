"""The paper's model, against its formulae worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.chips import find_device
from tdc_deploy.profiling.analytical.tdc_paper import (
    MEASURED,
    CoreShape,
    MeasuredCase,
    Tile,
    compare_measured,
    ordered_tiles,
    pick_tile,
    tile_cost,
)

A100 = find_device("A100")


def test_cost_by_hand() -> None:
    """96 to 64 channels, 7x7, tiles of 3x3 and 4 channels: 3 * 3 * 24 = 216 blocks of 64 threads.

    41 registers are handed out as 48: 65536 / (48 * 64) = 21 blocks a multiprocessor; one wave.
    """
    cost = tile_cost(CoreShape(96, 64, 7, 7), Tile(3, 3, 4), A100)
    assert cost.waves == 1
    assert cost.compute == 5 * 5 * 4 * 9
    assert cost.volume == 9 * 25 * 96 + 9 * 64 * 216 + 9 * 4 * 64 * 216


def test_waves_by_hand() -> None:
    """64 to 32 channels, 224x224, tiles of 1x1 and 1 channel: 224 * 224 * 64 blocks of one warp.

    32 of them on each of 108 multiprocessors: 3211264 / 3456 = 929.2.
    """
    cost = tile_cost(CoreShape(64, 32, 224, 224), Tile(1, 1, 1), A100)
    assert cost.waves == 930
    assert cost.compute == 9 * 9 * 930


@pytest.mark.parametrize("case", MEASURED, ids=lambda case: str(case.shape))
def test_the_pick_moves_least_of_the_best_5_percent_by_compute(case: MeasuredCase) -> None:
    shape = case.shape
    ordered = ordered_tiles(shape, A100)
    assert [c.compute for c in ordered] == sorted(c.compute for c in ordered)
    pick = pick_tile(shape, A100)
    kept = ordered[: -(-len(ordered) // 20)]
    assert pick in kept
    assert pick.volume == min(cost.volume for cost in kept)


def test_the_order_is_by_compute_before_the_cut() -> None:
    """Cutting an unsorted list, as the authors' code does, would keep tiles of one row and column."""
    pick = pick_tile(CoreShape(64, 32, 224, 224), A100)
    assert pick.tile.th > 1
    assert pick.tile.tw > 1


def test_measured_cases_are_compared() -> None:
    rows = compare_measured(A100)
    assert [row.case.ms for row in rows] == [0.0259, 0.0181, 0.2598]
    for row in rows:
        assert row.best.tile == row.case.best
        assert 1 <= row.place <= row.tiles
        assert row.pick.compute <= row.best.compute


def test_more_multiprocessors_need_no_more_waves() -> None:
    for case in MEASURED:
        few, many = (replace(A100, multiprocessors=count) for count in (20, 200))
        assert (
            tile_cost(case.shape, case.best, many).waves
            <= tile_cost(case.shape, case.best, few).waves
        )


def test_impossible_cores_are_refused() -> None:
    with pytest.raises(TdcError, match="impossible core"):
        CoreShape(64, 2048, 7, 7)
    with pytest.raises(TdcError, match="takes too much shared memory"):
        tile_cost(CoreShape(4096, 32, 64, 64), Tile(8, 8, 1024), A100)
