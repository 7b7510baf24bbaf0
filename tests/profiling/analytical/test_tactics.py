"""The list of tactics, against the plugin's own and by hand."""

from __future__ import annotations

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.tactics import (
    FusedConfig,
    Tactic,
    all_tactics,
    decode,
    parse_configs,
)

LINES = """\
// a comment

#ifndef TDC_FUSED_F16
TDC_FUSED_F16(4, 4, 48, 1, 4, 64, 4)
TDC_FUSED_F16(8, 16, 128, 4, 2, 64, 2)
TDC_UNFUSED_TF32(16, 64, 1, 4, 4)
TDC_CHANNEL_FIRST_F32(1, 3, 16)
"""


def test_lines_become_tactics_with_their_splits() -> None:
    names = [str(tactic) for tactic in parse_configs(LINES.splitlines())]
    assert names == [
        "fused f16 4x4 r48 w1x4 c64 s4",
        "fused f16 4x4 r48 w1x4 c64 s4 cluster2",
        "fused f16 4x4 r48 w1x4 c64 s4 cluster4",
        "fused f16 4x4 r48 w1x4 c64 s4 cluster8",
        "fused f16 4x4 r48 w1x4 c64 s4 ticket2",
        "fused f16 4x4 r48 w1x4 c64 s4 ticket4",
        "fused f16 4x4 r48 w1x4 c64 s4 ticket8",
        "fused f16 8x16 r128 w4x2 c64 s2",
        "unfused tf32 16x64 w1x4 s4",
        "channel-first f32 1x3 c16",
    ]


@pytest.mark.parametrize("line", ["TDC_FUSED_F16(4, 4)x", "TDC_FUSED_F64(1)", "int x;"])
def test_another_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a configuration"):
        list(parse_configs([line]))


def test_the_number_holds_family_arithmetic_config_split_and_parts() -> None:
    config = FusedConfig(4, 4, 48, 1, 4, 64, 4)
    tactic = Tactic("fused", "tf32", 3, config, "ticket", 8)
    assert tactic.number == 1 | 2 << 4 | 3 << 8 | 2 << 16 | 3 << 20
    assert Tactic("channel-first", "f32", 0, config).number == 3 | 3 << 4


def test_numbers_decode_to_their_tactics() -> None:
    numbers = [tactic.number for tactic in all_tactics()]
    assert len(set(numbers)) == len(numbers) > 100
    assert [decode(number) for number in numbers] == list(all_tactics())


@pytest.mark.parametrize("number", [0, -1, 1 << 24, 0xFF11, all_tactics()[0].number | 3 << 16])
def test_other_numbers_are_no_tactics(number: int) -> None:
    with pytest.raises(TdcError, match="does not exist"):
        decode(number)
