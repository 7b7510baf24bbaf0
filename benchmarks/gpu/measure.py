"""Measure one layer: ours, checked first, against every competitor. Needs torch."""

from __future__ import annotations

import gc
import statistics
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.gpu.core import best_core
from benchmarks.gpu.layers import Case
from benchmarks.gpu.natives import (
    LARGEST_ERROR,
    Competitor,
    competitors,
    precision,
    relative_error,
)
from benchmarks.gpu.ours import OurLayer
from benchmarks.gpu.predictions import first_pick
from benchmarks.gpu.problem import Problem, make_problem, worst_excess
from benchmarks.gpu.timing import Samples
from tdc_deploy.plugin.library import Library
from tdc_deploy.profiling.analytical.tactics import Arithmetic

SCAN = {"warmup": 5, "samples": 30}

Entry = dict[str, Any]


class Timer(Protocol):
    """Times what a function launches."""

    def time(self, run: Any) -> Samples:
        """The time of `run`."""
        ...


@dataclass(frozen=True)
class Bench:
    """What measuring takes."""

    library: Library
    timer: Timer
    compile_mode: str = "default"
    device: str = "cuda"


def measure_layer(bench: Bench, case: Case, arithmetic: Arithmetic) -> Entry:
    """Ours against the dense convolution and the native chain."""
    problem = make_problem(case, arithmetic, device=bench.device)
    with precision(arithmetic):
        entry = {
            "names": list(case.names),
            "ours": measure_ours(bench, problem),
            **_measure_natives(bench, problem),
        }
    _free()
    return entry


def measure_core(bench: Bench, case: Case) -> Entry:
    """Ours in fp32 against the scheme of TDC: its core kernel between two 1x1 convolutions."""
    problem = make_problem(case, "f32", device=bench.device)
    with precision("f32"):
        entry = {
            "ours": measure_ours(bench, problem),
            "tdc": measure_ours(bench, problem, channel_first=True),
            "tdc_core": best_core(bench.library, case, bench.device),
        }
    _free()
    return entry


def measure_ours(bench: Bench, problem: Problem, *, channel_first: bool = False) -> Entry:
    """The fastest right tactic of tdc_time, and the analytical model's first pick beside it."""
    ours = OurLayer(bench.library, problem, channel_first=channel_first)
    times = {tactic.number: _scan(ours, tactic.number) for tactic in ours.tactics()}
    ranked = sorted(times, key=lambda number: times[number])
    wrong: dict[str, float] = {}
    for number in ranked:
        excess = _excess(ours, number)
        if excess <= 1:
            break
        wrong[bench.library.describe(number)] = excess
    else:
        return {"us": None, "wrong": wrong}
    pick = None if channel_first else first_pick(problem.case, problem.arithmetic)
    return {
        **_timed(bench, ours, number),
        "tactic": bench.library.describe(number),
        "number": number,
        "tdc_time_us": times[number],
        "excess": excess,
        "pick": None if pick not in times else bench.library.describe(pick),
        "pick_tdc_time_us": times.get(pick) if pick is not None else None,
        "tactics": {bench.library.describe(n): round(times[n], 2) for n in ranked},
        "wrong": wrong,
    }


def _scan(ours: OurLayer, number: int) -> float:
    return statistics.median(ours.library.time(number, ours.prepare(number), **SCAN))


def _excess(ours: OurLayer, number: int) -> float:
    """How far from right, where at most 1 is right."""
    excess = worst_excess(ours.problem, ours.output(number))
    return excess if ours.padding_is_zero() else float("inf")


def _timed(bench: Bench, ours: OurLayer, number: int) -> Entry:
    return _fields(bench.timer.time(ours.launcher(number)))


def _measure_natives(bench: Bench, problem: Problem) -> Entry:
    found: Entry = {"dense": {}, "chain": {}, "failed": {}}
    for competitor in competitors(problem, bench.compile_mode):
        try:
            found[competitor.kind][competitor.name] = _time_native(bench, problem, competitor)
        except Exception as error:  # a competitor may lack anything; ours may not
            lines = str(error).splitlines() or [""]
            found["failed"][competitor.name] = f"{type(error).__name__}: {lines[0]}"
    return found


def _time_native(bench: Bench, problem: Problem, competitor: Competitor) -> Entry:
    run = competitor.make()
    y: Tensor = run()
    error = relative_error(problem, competitor.kind, y)
    if not error <= LARGEST_ERROR:
        raise ValueError(f"its relative error is {error}")
    del y
    return _fields(bench.timer.time(run))


def _fields(samples: Samples) -> Entry:
    fields = asdict(samples)
    return {"us": fields.pop("median_us"), **fields}


def _free() -> None:
    """Give memory back before the next layer: graphs keep theirs until they are collected."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
