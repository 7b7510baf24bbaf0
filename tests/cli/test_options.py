from __future__ import annotations

import pytest

from tdc_deploy.cli.options import parse_pads, parse_sizes
from tdc_deploy.errors import TdcError


@pytest.mark.parametrize(
    ("value", "count", "sizes"),
    [
        ("1x64x56x56", 4, (1, 64, 56, 56)),
        ("1,64,56,56", 4, (1, 64, 56, 56)),
        ("3", 2, (3, 3)),
        ("3x1", 2, (3, 1)),
    ],
)
def test_sizes(value: str, count: int, sizes: tuple[int, ...]) -> None:
    assert parse_sizes("--flag", value, count) == sizes


@pytest.mark.parametrize("value", [None, "", "x", "1x2x3", "0", "-1", "1.5", "3x"])
def test_other_sizes_are_refused(value: str | None) -> None:
    with pytest.raises(TdcError, match="--flag is"):
        parse_sizes("--flag", value, 2)


@pytest.mark.parametrize(
    ("value", "pads"), [("1", (1, 1, 1, 1)), ("1x0", (1, 0, 1, 0)), ("0,1,2,3", (0, 1, 2, 3))]
)
def test_pads(value: str, pads: tuple[int, ...]) -> None:
    assert parse_pads("--padding", value) == pads


@pytest.mark.parametrize("value", ["", "1x2x3", "-1", "a"])
def test_other_pads_are_refused(value: str) -> None:
    with pytest.raises(TdcError, match="--padding is"):
        parse_pads("--padding", value)
