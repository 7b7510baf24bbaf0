"""The paper's rule: the fastest of the largest that meet a FLOPs budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdc_deploy.ranks.table import CostTable, Row, latency
from tdc_deploy.ranks.tdc import tdc_rule, tdc_within, tdc_within_error
from tdc_deploy.tucker import chain_cost
from tdc_deploy.types import DENSE, Candidate, ConvLayer, Form, Ranks
from tests.helpers import fixed
from tests.ranks.tables import conv_layer, realistic_table

LAYER = conv_layer("a", 128, 128)


def offer(
    r_in: int, r_out: int, ms: float, error: float = 0.1, form: Form = "tucker2"
) -> Candidate:
    implementation = "fused" if form == "tucker2" else "native"
    return Candidate(form, Ranks(r_in, r_out), implementation, error=error, latency_ms=ms)  # type: ignore[arg-type]  # a conditional string


def one_row(*offers: Candidate, layer: ConvLayer = LAYER, dense_ms: float = 1.0) -> CostTable:
    return CostTable({"a": Row(layer, (replace(DENSE, latency_ms=dense_ms), *offers))})


def share(candidate: Candidate, layer: ConvLayer = LAYER) -> float:
    """The candidate's arithmetic over the layer's."""
    return chain_cost(layer, candidate).macs / chain_cost(layer, DENSE).macs


def test_fastest_of_the_largest() -> None:
    wide, tall, small = offer(96, 32, 0.5), offer(32, 96, 0.4), offer(32, 32, 0.1)
    table = one_row(wide, tall, small)
    # Both larger ones meet the budget, and the small one has no more rank than either: it is out.
    assert tdc_rule(table, share(wide) + 1e-9) == {"a": tall}
    slower = replace(tall, latency_ms=0.6)
    assert tdc_rule(one_row(wide, slower, small), share(wide) + 1e-9) == {"a": wide}


def test_budget_is_met() -> None:
    large, small = offer(96, 96, 0.5), offer(32, 32, 0.4)
    table = one_row(large, small)
    assert tdc_rule(table, share(large) * 1.0001) == {"a": large}
    assert tdc_rule(table, share(large) * 0.9999) == {"a": small}
    assert tdc_rule(table, share(small) * 0.9999)["a"].form == "dense"


@pytest.mark.parametrize(("ms", "form"), [(0.84, "tucker2"), (0.86, "dense")])
def test_small_gains_stay_dense(ms: float, form: str) -> None:
    table = one_row(offer(64, 64, ms))
    assert tdc_rule(table, 1.0)["a"].form == form


def test_theta() -> None:
    table = one_row(offer(64, 64, 0.6))
    assert tdc_rule(table, 1.0, theta=0.39)["a"].form == "tucker2"
    assert tdc_rule(table, 1.0, theta=0.41)["a"].form == "dense"
    assert tdc_rule(one_row(offer(64, 64, 1.0)), 1.0, theta=0)["a"].form == "tucker2"


def test_other_forms_and_other_steps_are_not_the_papers() -> None:
    table = one_row(
        offer(48, 80, 0.1),
        offer(80, 48, 0.1),
        offer(64, 128, 0.1, form="tucker_in"),
        offer(128, 64, 0.1, form="tucker_out"),
        offer(64, 64, 0.5),
    )
    assert tdc_rule(table, 1.0)["a"].ranks == Ranks(64, 64)


def test_narrow_layers_take_any_step() -> None:
    narrow = conv_layer("a", 64, 128)
    table = one_row(offer(48, 64, 0.5), offer(48, 48, 0.1), layer=narrow)
    assert tdc_rule(table, 1.0) == {"a": table.rows["a"].candidates[1]}


def total_ms(selected: dict[str, Candidate]) -> float:
    return sum(latency(c) for c in selected.values())


def total_error(selected: dict[str, Candidate]) -> float:
    return sum(c.error for c in selected.values())


@given(budget=st.floats(0.02, 1), theta=st.floats(0, 0.5))
@fixed(40)
def test_rule_on_real_spectra(budget: float, theta: float) -> None:
    table = realistic_table()
    for name, chosen in tdc_rule(table, budget, theta).items():
        row = table.rows[name]
        if chosen.form == "dense":
            continue
        assert chosen in row.candidates
        assert row.macs(chosen) <= budget * row.macs(DENSE)
        assert latency(chosen) <= (1 - theta) * row.dense_ms
        assert chosen.ranks is not None
        for other in row.candidates[1:]:
            if other.form != "tucker2" or other.ranks is None or other.ranks == chosen.ranks:
                continue
            on_grid = row.layer.c_in <= 64 or not (other.ranks.r_in % 32 or other.ranks.r_out % 32)
            larger = (
                other.ranks.r_in >= chosen.ranks.r_in and other.ranks.r_out >= chosen.ranks.r_out
            )
            assert not (on_grid and larger and row.macs(other) <= budget * row.macs(DENSE))


def test_within_latency() -> None:
    table = realistic_table()
    for target in (0.3, 0.5, 0.8):
        selected = tdc_within(table, target * table.dense_ms)
        assert selected is not None
        assert total_ms(selected) <= target * table.dense_ms
    previous = 0.0
    for target in (0.8, 0.5, 0.3):
        selected = tdc_within(table, target * table.dense_ms)
        assert selected is not None
        assert total_error(selected) >= previous
        previous = total_error(selected)
    assert tdc_within(table, 0.01 * table.dense_ms) is None


def test_within_latency_takes_the_largest_budget() -> None:
    offers = [offer(r, r, r / 128, error=1 - r / 128) for r in (32, 64, 96)]
    table = one_row(*offers)
    selected = tdc_within(table, 0.8)
    assert selected is not None and selected["a"].ranks == Ranks(96, 96)
    selected = tdc_within(table, 0.6)
    assert selected is not None and selected["a"].ranks == Ranks(64, 64)


def test_within_error() -> None:
    offers = [offer(r, r, r / 128, error=1 - r / 128) for r in (32, 64, 96)]
    table = one_row(*offers)
    assert tdc_within_error(table, 0.8)["a"].ranks == Ranks(32, 32)
    assert tdc_within_error(table, 0.6)["a"].ranks == Ranks(64, 64)
    assert tdc_within_error(table, 0.2)["a"].form == "dense"
    real = realistic_table()
    for limit in (0.05, 0.5, 2.0):
        assert total_error(tdc_within_error(real, limit)) <= limit
