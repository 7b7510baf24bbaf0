"""Which limit a built network is beyond, and what is aimed at next."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tdc_deploy.builder import LEAST_SHARE, RETRY_MARGIN, beyond, tighter
from tdc_deploy.planner import Goal
from tdc_deploy.verify import Comparison

COMPARISON = Comparison(0.05, 1.0, 1.0, 0.9, 0.9, 8, True)

# Products of a few numbers.
ROUNDING = 1e-12


def test_an_accuracy_that_is_not_known_keeps_no_limit() -> None:
    unknown = replace(COMPARISON, accuracy_before=None, accuracy_after=None)
    assert beyond(COMPARISON, 0.1, 0.0) == ""
    assert beyond(unknown, 0.1, None) == ""
    assert "no output is class scores" in beyond(unknown, 0.1, 1.0)


@pytest.mark.parametrize(
    ("error", "share"), [(0.2, 0.5), (math.inf, LEAST_SHARE), (math.nan, LEAST_SHARE)]
)
def test_less_error_is_aimed_at_next(error: float, share: float) -> None:
    found = tighter(replace(COMPARISON, error=error), Goal(), 0.08)
    assert abs(found - RETRY_MARGIN * share * 0.08) <= ROUNDING


def test_no_error_at_all_leaves_the_aim() -> None:
    found = tighter(replace(COMPARISON, error=0.0), Goal(max_error=0.0), 0.08)
    assert abs(found - RETRY_MARGIN * 0.08) <= ROUNDING
