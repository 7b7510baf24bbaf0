"""Which limit a built network is beyond, and what is aimed at next."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tdc_deploy.builder import LEAST_SHARE, RETRY_MARGIN, beyond, tighter
from tdc_deploy.engines import choose
from tdc_deploy.errors import TdcError
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


def form(name: str, error: float, after: float, ratio: float) -> Any:
    comparison = replace(COMPARISON, error=error, accuracy_after=after)
    return SimpleNamespace(
        form=name, comparison=comparison, ratio=SimpleNamespace(value=ratio, upper=ratio)
    )


def test_an_engine_is_chosen_within_both_limits_and_says_which_another_missed() -> None:
    forms = [
        form("source", 0.01, 0.9, 1.0),
        form("fused", 0.02, 0.8, 0.5),
        form("int8", 1, 0.9, 0.4),
    ]
    chosen, reason = choose({each.form: each for each in forms}, 0.1, 5.0)
    assert chosen is forms[0]
    assert "fused 0.500 (over the accuracy limit)" in reason
    assert "int8 0.400 (over the error limit)" in reason
    with pytest.raises(TdcError, match="limit of accuracy: the accuracy drops by 10 points"):
        choose({"fused": forms[1]}, 0.1, 5.0)
    with pytest.raises(TdcError, match=r"error limit of 0\.1: int8 1"):
        choose({"int8": forms[2]}, 0.1, 5.0)
