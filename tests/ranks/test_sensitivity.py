"""What each side of a layer does to the network's output decides where a plan spends its error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tdc_deploy.progress import silent
from tdc_deploy.ranks import milp
from tdc_deploy.ranks.sensitivity import (
    LEAST_ERROR,
    RUINED_ERROR,
    SECOND_RANKS,
    with_sensitivities,
)
from tdc_deploy.ranks.table import CostTable, Row
from tdc_deploy.types import Candidate, ConvLayer, Ranks

CHANNELS = 64
RANKS = (16, 32, 48)
SVD = [Candidate("svd", Ranks(r, r), latency_ms=0.5) for r in RANKS]

Asked = list[dict[str, Candidate]]
Network = Callable[[dict[str, Candidate]], float]


def layer(name: str) -> ConvLayer:
    pads, hw = (1, 1, 1, 1), (8, 8)
    return ConvLayer(name, CHANNELS, CHANNELS, (3, 3), (1, 1), pads, (1, 1), 1, "float32", 1, hw)


def loss(rank: int) -> float:
    return (1 - rank / CHANNELS) ** 2 / 3


def errors_of(name: str, candidates: Sequence[Candidate]) -> list[float]:
    del name
    return [sum(losses(candidate)) for candidate in candidates]


def losses(candidate: Candidate) -> tuple[float, float]:
    """On the input's side and on the output's."""
    ranks = candidate.ranks
    if ranks is None:
        return 0.0, 0.0
    lost_in = 0.0 if candidate.form == "tucker_out" else loss(ranks.r_in)
    lost_out = loss(ranks.r_out) if candidate.form in ("tucker2", "tucker_out") else 0.0
    return lost_in, lost_out


def offers() -> list[Candidate]:
    pairs = [Candidate("tucker2", Ranks(i, o), "fused") for i in RANKS for o in RANKS]
    pairs += [Candidate("tucker_in", Ranks(r, CHANNELS)) for r in RANKS]
    pairs += [Candidate("tucker_out", Ranks(CHANNELS, r)) for r in RANKS]
    return [replace(c, error=sum(losses(c)), latency_ms=1 - sum(losses(c))) for c in pairs]


def row(name: str, candidates: Sequence[Candidate] | None = None) -> Row:
    dense = Candidate("dense", latency_ms=1.0)
    return Row(layer(name), (dense, *(offers() if candidates is None else candidates)))


def table_of(*names: str) -> CostTable:
    return CostTable({name: row(name) for name in names})


def network(
    truth: dict[str, tuple[float, float]], power: float = 1.0, asked: Asked | None = None
) -> Network:
    """The error of one whose squared error is the weighted sum of powers of what its layers' sides lose."""

    def squared(name: str, candidate: Candidate) -> float:
        pairs = zip(truth[name], losses(candidate), strict=True)
        return math.fsum(weight * lost**power for weight, lost in pairs)

    def error_of(selection: dict[str, Candidate]) -> float:
        if asked is not None:
            asked.append(selection)
        return math.sqrt(sum(squared(name, c) for name, c in selection.items()))

    return error_of


@pytest.mark.parametrize("power", [1.0, 1.7, 2.5])
def test_the_penalties_are_what_the_layers_do(power: float) -> None:
    truth = {"a": (0.5, 2.0), "b": (4.0, 4.0), "c": (0.1, 1.0)}
    error_of = network(truth, power)
    table = with_sensitivities(table_of(*truth), error_of, errors_of, silent)
    for name, found in table.rows.items():
        for candidate in found.candidates:
            expected = error_of({name: candidate}) ** 2
            assert found.penalty(candidate) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("power", "taken"), [(0.5, 1.0), (4.0, 2.5)])
def test_powers_have_limits(power: float, taken: float) -> None:
    truth = dict.fromkeys("abc", (100.0, 100.0))
    table = with_sensitivities(table_of(*truth), network(truth, power), errors_of, silent)
    penalties = [table.rows["a"].penalty(Candidate("tucker_in", Ranks(r, 64))) for r in RANKS]
    expected = 100.0 * loss(32) ** power * (loss(16) / loss(32)) ** taken
    assert penalties[0] == pytest.approx(expected)


@pytest.mark.parametrize("layers", [3, 12, 20, 21])
def test_each_kind_of_side_has_its_own_power(layers: int) -> None:
    names = [f"layer{i}" for i in range(layers)]

    def error_of(selection: dict[str, Candidate]) -> float:
        ((_, candidate),) = selection.items()
        lost_in, lost_out = losses(candidate)
        return math.sqrt(lost_in**2 + lost_out)

    # The stem is cut on its output's side alone.
    stem = [c for c in offers() if c.form == "tucker_out"]
    rows = {"stem": row("stem", stem)} | {name: row(name) for name in names}
    table = with_sensitivities(CostTable(rows), error_of, errors_of, silent)
    for name, found in table.rows.items():
        for candidate in found.candidates:
            expected = error_of({name: candidate}) ** 2
            assert found.penalty(candidate) == pytest.approx(expected, rel=1e-9)


def test_candidates_of_other_kinds_cost_the_same_once() -> None:
    """One decomposition may be offered fused and native, in several precisions."""
    native = [replace(c, implementation="native", precision="fp16") for c in offers()]
    twice = [*offers(), *native]
    truth = {"a": (0.5, 2.0)}
    one = with_sensitivities(table_of("a"), network(truth), errors_of, silent)
    both = with_sensitivities(CostTable({"a": row("a", twice)}), network(truth), errors_of, silent)
    assert both.rows["a"].penalties == one.rows["a"].penalties


def test_each_side_is_asked_for_once_and_some_twice() -> None:
    asked: Asked = []
    names = [f"layer{i}" for i in range(30)]
    truth = dict.fromkeys(names, (1.0, 1.0))
    with_sensitivities(table_of(*names), network(truth, asked=asked), errors_of, silent)
    assert all(len(selection) == 1 for selection in asked)
    # Layer by layer: what stands before it need not be computed again.
    found = [next(iter(selection)) for selection in asked]
    assert list(dict.fromkeys(found)) == names
    assert found == sorted(found, key=names.index)
    for form in ("tucker_in", "tucker_out"):
        times = sum(c.form == form for selection in asked for c in selection.values())
        assert 30 + SECOND_RANKS / 2 <= times <= 30 + SECOND_RANKS
    (first, second), *_ = [
        [c for s in asked for n, c in s.items() if n == name] for name in names[1:]
    ]
    assert (first.form, first.ranks) == ("tucker_in", Ranks(32, 64))
    assert (second.form, second.ranks) == ("tucker_out", Ranks(64, 32))
    assert first.error == loss(32)


def test_a_side_that_nothing_is_cut_on_is_not_asked_for() -> None:
    only = [replace(c, form="tucker_in", ranks=Ranks(c.ranks.r_in, 64)) for c in SVD if c.ranks]
    for candidates, form in ((only, "tucker_in"), (SVD, "svd")):
        asked: Asked = []
        table = CostTable({"a": row("a", candidates)})
        error_of = network({"a": (2.0, 100.0)}, asked=asked)
        found = with_sensitivities(table, error_of, errors_of, silent).rows["a"]
        assert {c.form for selection in asked for c in selection.values()} == {form}
        assert found.penalty(candidates[0]) == pytest.approx(2.0 * loss(16))


def test_what_loses_next_to_nothing_is_no_probe() -> None:
    """Inputs of few directions: most ranks lose rounding only, which the least error would inflate."""

    def tiny(name: str, candidates: Sequence[Candidate]) -> list[float]:
        del name
        ranks = [c.ranks.r_in for c in candidates if c.ranks is not None]
        return [loss(r) if r == 16 else 1e-9 for r in ranks]

    asked: Asked = []
    table = CostTable({"a": row("a", SVD)})
    found = with_sensitivities(table, network({"a": (2.0, 0.0)}, asked=asked), tiny, silent)
    assert [s["a"].ranks for s in asked] == [Ranks(16, 16)]
    assert found.rows["a"].penalty(SVD[1]) == pytest.approx(2e-9)

    def nothing(name: str, candidates: Sequence[Candidate]) -> list[float]:
        del name
        return [1e-9] * len(candidates)

    still = with_sensitivities(table, network({"a": (2.0, 0.0)}, asked=asked), nothing, silent)
    assert len(asked) == 1
    assert still.rows["a"].penalty(SVD[0]) == 1e-9


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_layer_whose_loss_does_not_show_is_no_free_one(power: float) -> None:
    truth = {"a": (1.0, 1.0), "b": (1.0, 1.0), "c": (1.0, 1.0), "mute": (0.0, 0.0)}
    table = with_sensitivities(table_of(*truth), network(truth, power), errors_of, silent)
    # It grows no faster than what was lost, whatever the others do.
    most = table.rows["mute"].penalty(Candidate("tucker_in", Ranks(16, 64)))
    assert most == pytest.approx(LEAST_ERROR**2 * loss(16) / loss(32))
    least = table.rows["mute"].penalty(Candidate("tucker2", Ranks(32, 32)))
    assert least == pytest.approx(2 * LEAST_ERROR**2)


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_a_layer_that_ruins_the_network_stays_dense(broken: float) -> None:
    good = [f"good{i}" for i in range(4)]
    fine = network(dict.fromkeys(good, (0.1, 0.1)), power=2.5)

    def error_of(selection: dict[str, Candidate]) -> float:
        return broken if "bad" in selection else fine(selection)

    table = with_sensitivities(table_of("bad", *good), error_of, errors_of, silent)
    # The power that the others have would make its small losses look harmless, and its large ones endless.
    penalties = [table.rows["bad"].penalty(c) for c in offers()]
    assert 1 < min(penalties) < max(penalties) <= 2 * RUINED_ERROR**2
    selected = milp.least_latency(table, 0.1)
    assert selected["bad"].form == "dense"
    assert all(selected[name].form != "dense" for name in good)


def test_layers_with_nothing_to_offer_are_not_probed() -> None:
    asked: Asked = []
    table = CostTable({"a": row("a"), "dense": row("dense", [])})
    error_of = network({"a": (2.0, 2.0)}, asked=asked)
    measured = with_sensitivities(table, error_of, errors_of, silent)
    assert {name for selection in asked for name in selection} == {"a"}
    assert measured.rows["dense"] == table.rows["dense"]


def test_no_layers() -> None:
    assert with_sensitivities(CostTable({}), network({}), errors_of, silent).rows == {}


def test_the_plan_spends_its_error_where_it_does_not_hurt() -> None:
    truth = {"touchy": (100.0, 100.0), "calm": (0.01, 1.0)}
    weighed = with_sensitivities(table_of(*truth), network(truth), errors_of, silent)
    selected = milp.least_error(weighed, 1.85)
    assert selected is not None
    assert selected["touchy"].form == "dense"
    assert selected["calm"].form == "tucker_in"
