"""The exact solver, against trying everything."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdc_deploy.ranks.milp import TIE_BREAK, Selected, least_error, least_latency
from tdc_deploy.ranks.table import CostTable, latency
from tests.helpers import fixed
from tests.ranks.tables import random_table, realistic_table, row

# HiGHS keeps constraints to 1e-6.
FEASIBLE = 1e-6


def total_error(selected: Selected) -> float:
    return sum(c.error for c in selected.values())


def total_ms(selected: Selected) -> float:
    return sum(latency(c) for c in selected.values())


def all_selections(table: CostTable) -> list[tuple[float, float]]:
    """(error, latency) of every way to choose one candidate per layer."""
    rows = [r.candidates for r in table.rows.values()]
    return [
        (sum(c.error for c in choice), sum(latency(c) for c in choice))
        for choice in itertools.product(*rows)
    ]


tables = st.builds(
    random_table,
    st.builds(np.random.default_rng, st.integers(0, 2**32 - 1)),
    layers=st.integers(1, 4),
    offers=st.integers(0, 5),
)


@given(table=tables, share=st.floats(0, 1.1))
@fixed(60)
def test_least_error_is_the_least(table: CostTable, share: float) -> None:
    limit = share * table.dense_ms
    selected = least_error(table, limit)
    fitting = [error for error, ms in all_selections(table) if ms <= limit]
    if selected is None:
        assert not fitting
        return
    assert list(selected) == list(table.rows)
    assert all(c in table.rows[name].candidates for name, c in selected.items())
    assert total_ms(selected) <= limit + FEASIBLE
    # Ties are broken by latency, with a weight of TIE_BREAK a layer; HiGHS stops within 1e-4.
    slack = TIE_BREAK * len(table.rows) + 1e-4 * (1 + min(fitting))
    assert total_error(selected) <= min(fitting) + slack


@given(table=tables, limit=st.floats(0, 3))
@fixed(60)
def test_least_latency_is_the_least(table: CostTable, limit: float) -> None:
    selected = least_latency(table, limit)
    assert list(selected) == list(table.rows)
    assert total_error(selected) <= limit + FEASIBLE
    fastest = min(ms for error, ms in all_selections(table) if error <= limit)
    largest = max(latency(c) for r in table.rows.values() for c in r.candidates)
    slack = largest * (TIE_BREAK * (1 + limit) + 1e-4 * len(table.rows))
    assert total_ms(selected) <= fastest + slack


def test_nothing_fits() -> None:
    table = CostTable({"a": row("a", 1.0, [(1, 0.5, 0.1)]), "b": row("b", 1.0, [(1, 0.4, 0.2)])})
    assert least_error(table, 0.89) is None
    fastest = least_error(table, 0.91)
    assert fastest is not None and total_ms(fastest) == pytest.approx(0.9)


def test_dense_fits_a_full_budget() -> None:
    table = random_table(np.random.default_rng(0), 4, 4)
    selected = least_error(table, table.dense_ms * 1.001)
    assert selected is not None and total_error(selected) <= 0


def test_no_error_allowed_is_all_dense() -> None:
    table = CostTable({"a": row("a", 1.0, [(1, 0.5, 0.1)]), "b": row("b", 2.0, [(1, 0.4, 0.2)])})
    assert {c.form for c in least_latency(table, 0).values()} == {"dense"}


def test_any_error_allowed_is_the_fastest() -> None:
    table = random_table(np.random.default_rng(1), 5, 5)
    selected = least_latency(table, math.inf)
    assert selected == {n: min(r.candidates, key=latency) for n, r in table.rows.items()}


def test_ties_go_to_what_costs_less_of_the_other() -> None:
    offers = [(1, 0.5, 0.1), (2, 0.3, 0.1), (3, 0.3, 0.4), (4, 0.6, 0.1)]
    table = CostTable({"a": row("a", 1.0, offers)})
    best = table.rows["a"].candidates[2]
    assert least_error(table, 0.7) == {"a": best}
    assert least_latency(table, 0.7) == {"a": best}


def test_choices_are_joint() -> None:
    """Greedily taking each layer's best ratio would miss the budget's best use."""
    table = CostTable(
        {
            "a": row("a", 1.0, [(1, 0.4, 0.10)]),
            "b": row("b", 1.0, [(1, 0.5, 0.09)]),
            "c": row("c", 1.0, [(1, 0.5, 0.09)]),
        }
    )
    selected = least_error(table, 2.45)
    assert selected is not None
    assert {name for name, c in selected.items() if c.form != "dense"} == {"a"}
    selected = least_error(table, 2.05)
    assert selected is not None
    assert {name for name, c in selected.items() if c.form != "dense"} == {"b", "c"}


def test_layers_of_real_spectra() -> None:
    table = realistic_table()
    previous = math.inf
    for share in (0.2, 0.4, 0.6, 0.8):
        selected = least_error(table, share * table.dense_ms)
        assert selected is not None
        assert total_ms(selected) <= share * table.dense_ms + FEASIBLE
        error = total_error(selected)
        assert error <= previous
        previous = error
        again = least_latency(table, error + FEASIBLE)
        # The same trade seen from the other side, but for the solver's gap.
        assert total_ms(again) <= total_ms(selected) * (1 + 1e-3)


def every_selection(table: CostTable) -> list[Selected]:
    offers = [row.candidates for row in table.rows.values()]
    return [dict(zip(table.rows, chosen, strict=True)) for chosen in itertools.product(*offers)]


@pytest.mark.parametrize("sensitivity", [20.0, 1e3, 1e6])
def test_one_layer_that_must_not_be_touched_hides_nothing(sensitivity: float) -> None:
    """Its penalties are far larger than all others, which still decide among the rest."""
    rng = np.random.default_rng(11)
    for _ in range(10):
        table = random_table(rng, layers=5, offers=4)
        name = next(iter(table.rows))
        row = table.rows[name]
        penalties = {c.decomposition: sensitivity * c.error for c in row.candidates}
        table.rows[name] = replace(row, penalties=penalties)
        loose = table.dense_ms
        assert table.penalty(least_error(table, loose) or {}) == 0  # dense meets it
        limit = 0.7 * loose
        selected = least_error(table, limit)
        best = min(
            (table.penalty(s) for s in every_selection(table) if total_ms(s) <= limit),
            default=None,
        )
        assert (selected is None) == (best is None)
        if selected is not None and best is not None:
            # The second stage keeps the first one's penalty to HiGHS's 1e-6.
            assert table.penalty(selected) <= best * (1 + 1e-5)
            assert total_ms(selected) <= limit * (1 + 1e-6)
