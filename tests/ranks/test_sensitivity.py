"""What each layer's loss does to the network's output decides where a plan spends its error."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tdc_deploy.progress import silent
from tdc_deploy.ranks import milp
from tdc_deploy.ranks.sensitivity import LEAST_ERROR, with_sensitivities
from tdc_deploy.ranks.table import CostTable, Row
from tdc_deploy.types import Candidate, ConvLayer, Ranks

ERRORS = (0.01, 0.04, 0.09)


def layer(name: str) -> ConvLayer:
    return ConvLayer(name, 64, 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "float32", 1, (8, 8))


def row(name: str, offers: int = 3) -> Row:
    """Dense at 1 ms, and candidates of falling rank, each faster and of larger error."""
    candidates = [
        Candidate("tucker2", Ranks(48 - 16 * i, 48 - 16 * i), "fused", "fp32", error, 0.7 - 0.2 * i)
        for i, error in enumerate(ERRORS[:offers])
    ]
    return Row(layer(name), (Candidate("dense", latency_ms=1.0), *candidates))


def table_of(*names: str) -> CostTable:
    return CostTable({name: row(name) for name in names})


def network(sensitivities: dict[str, float], asked: list[dict[str, Candidate]] | None = None):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """The error of a network whose squared error is the weighted sum of its layers' losses."""

    def error_of(selection: dict[str, Candidate]) -> float:
        if asked is not None:
            asked.append(selection)
        return math.sqrt(sum(sensitivities[name] * c.error for name, c in selection.items()))

    return error_of


def test_what_is_measured_is_what_the_layer_does() -> None:
    truth = {"a": 0.5, "b": 4.0, "c": 1.0}
    table = with_sensitivities(table_of("a", "b", "c"), network(truth), silent)
    for name, sensitivity in truth.items():
        # Exact but for the square of a square root.
        assert abs(table.rows[name].sensitivity - sensitivity) <= 1e-12
        candidate = table.rows[name].candidates[2]
        assert abs(table.rows[name].penalty(candidate) - sensitivity * candidate.error) <= 1e-12


def test_one_network_a_layer_with_the_middle_candidate() -> None:
    asked: list[dict[str, Candidate]] = []
    table = table_of("a", "b")
    with_sensitivities(table, network({"a": 1.0, "b": 1.0}, asked), silent)
    assert [list(selection) for selection in asked] == [["a"], ["b"]]
    assert asked[0]["a"].error == ERRORS[1]


def test_what_loses_next_to_nothing_is_no_probe() -> None:
    """Inputs of few directions: most candidates lose rounding only, which the least error would inflate."""
    only = row("a")
    nothing = [replace(c, error=1e-9, latency_ms=0.8) for c in only.candidates[1:]] * 2
    table = CostTable({"a": replace(only, candidates=(*only.candidates, *nothing))})
    found = with_sensitivities(table, network({"a": 2.0}), silent)
    assert abs(found.rows["a"].sensitivity - 2.0) <= 1e-12
    still = CostTable({"a": replace(only, candidates=(only.candidates[0], *nothing))})
    assert with_sensitivities(still, network({"a": 2.0}), silent).rows["a"].sensitivity == 1.0


def test_a_layer_whose_loss_does_not_show_is_no_free_one() -> None:
    truth = {"a": 1.0, "b": 1.0, "mute": 0.0}
    table = with_sensitivities(table_of(*truth), network(truth), silent)
    # The square of the least error over the probe's loss.
    assert abs(table.rows["mute"].sensitivity - LEAST_ERROR**2 / ERRORS[1]) <= 1e-12


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_a_layer_that_ruins_the_network_stays_dense(broken: float) -> None:
    def error_of(selection: dict[str, Candidate]) -> float:
        return broken if "bad" in selection else 0.2

    table = with_sensitivities(table_of("bad", "good"), error_of, silent)
    assert np.isfinite(table.rows["bad"].sensitivity)
    selected = milp.least_latency(table, 0.1)
    assert selected["bad"].form == "dense"
    assert selected["good"].form == "tucker2"


def test_layers_with_nothing_to_offer_are_not_probed() -> None:
    asked: list[dict[str, Candidate]] = []
    table = CostTable({"a": row("a"), "dense": row("dense", offers=0)})
    measured = with_sensitivities(table, network({"a": 2.0}, asked), silent)
    assert len(asked) == 1
    assert measured.rows["dense"].sensitivity == 1.0


def test_no_layers() -> None:
    assert with_sensitivities(CostTable({}), network({}), silent).rows == {}


def test_the_plan_spends_its_error_where_it_does_not_hurt() -> None:
    truth = {"touchy": 100.0, "calm": 1.0}
    plain = table_of(*truth)
    weighed = with_sensitivities(plain, network(truth), silent)
    # 1.3 of 2 ms: one layer at its smallest ranks would do, or both in between.
    selected = milp.least_error(weighed, 1.3)
    assert selected is not None
    assert selected["touchy"].form == "dense"
    assert selected["calm"].error == ERRORS[2]
