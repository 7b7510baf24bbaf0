from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.results import Results
from benchmarks.gpu.targets import (
    core_verdict,
    geometric_mean,
    layer_verdicts,
    pick_over_best,
    speedup,
)
from tdc_deploy.errors import TdcError


def entry(ours: float | None, chain: float, **more: Any) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "us": ours,
        "tdc_time_us": ours,
        "pick_tdc_time_us": None,
        "wrong": {},
    }
    chains = {"slow": {"us": 9 * chain}, "fast": {"us": chain}}
    fields = {"batch": 1, "precision": "fp16", "floor_us": 1.0, "names": ["a"], "dense": {}}
    return {**fields, "ours": figures, "chain": chains, **more}


def verdicts(entries: list[dict[str, Any]]) -> list[bool | None]:
    return [verdict.met for verdict in layer_verdicts(entries)]


def test_results_are_on_disk_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "r.json"
    first = Results(path, {"gpu": "A"})
    first.add("x", {"us": 1.5})
    first.put("ceilings", {"a": 1})
    again = Results(path, {"gpu": "A"})
    assert again.entries == {"x": {"us": 1.5}}
    assert again.get("ceilings") == {"a": 1} and again.get("nothing") is None
    assert json.loads(path.read_text())["machine"] == {"gpu": "A"}


def test_results_of_another_machine_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    Results(path, {"gpu": "A"}).add("x", {})
    with pytest.raises(TdcError, match="another machine or build"):
        Results(path, {"gpu": "B"})


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"machine": 1, "entries": {}}'])
def test_a_file_of_another_kind(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(TdcError, match="no results of this benchmark"):
        Results(path, {})
    assert path.read_text() == content


def test_the_best_competitor_counts() -> None:
    assert speedup(entry(2.0, 6.0), "chain") == 3.0
    assert speedup(entry(2.0, 6.0), "dense") is None
    assert speedup(entry(None, 6.0), "chain") is None


def test_geometric_mean() -> None:
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert geometric_mean([]) != geometric_mean([])


def test_targets_of_layers() -> None:
    # speedup at batch 1, at batch 32, the slowest, of the roofline, the pick
    good = [entry(2.0, 4.2), entry(10.0, 16.0, batch=32, floor_us=7.0)]
    good[0]["ours"]["pick_tdc_time_us"] = 2.2
    assert verdicts(good) == [True, True, True, True, True]
    bad = [entry(2.0, 3.9), entry(10.0, 8.9, batch=32, floor_us=5.9)]
    bad[0]["ours"]["pick_tdc_time_us"] = 2.4
    assert verdicts(bad) == [False, False, False, False, False]
    assert verdicts([]) == [None] * 5


def test_a_small_floor_is_not_held_against_the_roofline() -> None:
    assert verdicts([entry(40.0, 99.0, floor_us=4.0)])[3] is None


def test_the_pick_is_compared_in_tdc_times() -> None:
    measured = entry(2.0, 4.0)
    assert pick_over_best(measured) is None
    measured["ours"].update(us=99.0, pick_tdc_time_us=3.0)
    assert pick_over_best(measured) == 1.5


def test_the_target_over_tdc() -> None:
    assert core_verdict([{"ours": {"us": 2.0}, "tdc": {"us": 2.7}}]).met is True
    assert core_verdict([{"ours": {"us": 2.0}, "tdc": {"us": 2.5}}]).met is False
    assert core_verdict([{"ours": {"us": None}, "tdc": {"us": 2.5}}]).met is None
