"""Which layers go back to float32."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tdc_calibration.fallback import fall_back

from tdc_deploy.progress import silent

LAYERS = [f"layer{i}" for i in range(20)]
COST = {layer: float((7 * i) % 20) for i, layer in enumerate(LAYERS)}


class Limits:
    """Holds where what is not kept costs at most `limit`; counts how often it is asked."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.asked = 0
        self.alone = 0

    def holds(self, kept: Sequence[str]) -> bool:
        self.asked += 1
        return sum(COST[layer] for layer in LAYERS if layer not in kept) <= self.limit

    def error_alone(self, layer: str) -> float:
        self.alone += 1
        return COST[layer]


def test_nothing_falls_back_or_is_measured_where_the_limits_hold() -> None:
    limits = Limits(1000)
    assert fall_back(LAYERS, limits.error_alone, limits.holds, silent) == []
    assert (limits.asked, limits.alone) == (1, 0)


@pytest.mark.parametrize("limit", [189, 150, 100, 10, 1, 0])
def test_as_few_as_possible_of_the_most_costly(limit: int) -> None:
    limits = Limits(limit)
    kept = fall_back(LAYERS, limits.error_alone, limits.holds, silent)
    assert kept is not None
    order = sorted(LAYERS, key=lambda layer: -COST[layer])
    assert kept == order[: len(kept)]
    assert limits.holds(kept)
    assert not limits.holds(kept[:-1])


def test_few_questions_are_asked() -> None:
    limits = Limits(60)
    fall_back(LAYERS, limits.error_alone, limits.holds, silent)
    assert limits.asked <= 2 + 5  # none, all, and log2 of 20
    assert limits.alone == len(LAYERS)


def test_limits_that_never_hold_are_told_and_nothing_is_measured() -> None:
    limits = Limits(-1)
    assert fall_back(LAYERS, limits.error_alone, limits.holds, silent) is None
    assert limits.alone == 0


def test_one_planted_layer() -> None:
    kept = fall_back(
        LAYERS,
        lambda layer: 1.0 if layer == "layer7" else 0.1,
        lambda layers: "layer7" in layers,
        silent,
    )
    assert kept == ["layer7"]
