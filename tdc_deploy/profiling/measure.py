"""Time one model, or two against each other, through Polygraphy's runners."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from scipy import stats

from tdc_deploy.types import Ratio, Timing

Feeds = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Effort:
    """How long to measure: runs and seconds are both lower limits, of timed runs after warm-up.

    After `patience_s` seconds, the fewest runs that make a summary are enough, and of the warm-up one after
    a tenth of that: a model that takes a second a run need not run a hundred times.
    """

    warmup_runs: int = 3
    warmup_s: float = 0.01
    runs: int = 15
    seconds: float = 0.06
    patience_s: float = math.inf

    @property
    def warmup(self) -> tuple[Effort, int]:
        """The effort of the warm-up, and its fewest runs."""
        effort = Effort(0, 0.0, self.warmup_runs, self.warmup_s, self.patience_s / 10)
        return effort, min(1, self.warmup_runs)


LAYER = Effort(patience_s=0.5)
NETWORK = Effort(warmup_runs=3, warmup_s=0.1, runs=40, seconds=1.0, patience_s=5.0)
FINAL = Effort(warmup_runs=3, warmup_s=0.2, runs=100, seconds=3.0, patience_s=15.0)

FEWEST_RUNS = 3

# A spread above this means that something else ran: measure again, up to MAX_TRIES in all.
QUIET_SPREAD = 0.2
MAX_TRIES = 4

# Pairs are compared in blocks, so that slow drifts of the machine widen the interval as they should.
BLOCKS = 12
FEWEST_PAIRS = 6

SESSIONS = 6


def timing_of(milliseconds: Sequence[float]) -> Timing:
    """The summary of a series of run times in milliseconds."""
    median, p10, p90, p95, p99 = np.percentile(milliseconds, [50, 10, 90, 95, 99])
    return Timing(float(median), float(p10), float(p90), float(p95), float(p99), len(milliseconds))


def measure(runner: BaseRunner, feeds: Feeds, effort: Effort = LAYER) -> Timing:
    """The latency of an active runner, the calmest of up to MAX_TRIES series."""
    _repeat(lambda: _run(runner, feeds), *effort.warmup)
    best = _series(runner, feeds, effort)
    for _ in range(MAX_TRIES - 1):
        if best.spread <= QUIET_SPREAD:
            break
        best = min(best, _series(runner, feeds, effort), key=lambda timing: timing.spread)
    return best


def _series(runner: BaseRunner, feeds: Feeds, effort: Effort) -> Timing:
    milliseconds: list[float] = []
    _repeat(lambda: milliseconds.append(_run(runner, feeds)), effort, FEWEST_RUNS)
    return timing_of(milliseconds)


def compare(before: BaseRunner, after: BaseRunner, feeds: Feeds, effort: Effort = NETWORK) -> Ratio:
    """time(after) / time(before) of two active runners that take turns, with its 95% interval.

    The runs are interleaved, in an order that alternates, so that what disturbs one disturbs both. The
    interval is Student's, over the log-ratios of BLOCKS blocks of consecutive pairs; of fewer pairs, over
    the pairs.
    """
    times = _pairs(before, after, feeds, effort, FEWEST_PAIRS)
    blocks = np.array_split(np.log(times[:, 1] / times[:, 0]), min(BLOCKS, len(times)))
    return _ratio(times, [float(np.median(block)) for block in blocks])


def compare_fresh(
    before: Callable[[], BaseRunner],
    after: Callable[[], BaseRunner],
    feeds: Feeds,
    effort: Effort,
) -> Ratio:
    """The same over SESSIONS pairs of newly made runners, each measured for its part of the effort.

    Two sessions of one model differ by a few tenths of a percent for as long as they live (where their
    memory lies), which no number of runs averages out: here each pair counts once.
    """
    part = replace(
        effort,
        runs=effort.runs // SESSIONS,
        seconds=effort.seconds / SESSIONS,
        patience_s=effort.patience_s / SESSIONS,
    )
    series = []
    for number in range(SESSIONS):
        first, second = (before(), after()) if number % 2 else (after(), before())
        with first, second:
            runners = (first, second) if number % 2 else (second, first)
            series.append(_pairs(*runners, feeds, part, FEWEST_RUNS))
    logs = [float(np.median(np.log(times[:, 1] / times[:, 0]))) for times in series]
    return _ratio(np.concatenate(series), logs)


def _pairs(
    before: BaseRunner, after: BaseRunner, feeds: Feeds, effort: Effort, fewest: int
) -> NDArray[np.float64]:
    """Milliseconds [pairs, 2] of two active runners that take turns, at least `fewest`."""
    pairs: list[tuple[float, float]] = []

    def pair() -> None:
        if len(pairs) % 2:
            second, first = _run(after, feeds), _run(before, feeds)
            pairs.append((first, second))
        else:
            pairs.append((_run(before, feeds), _run(after, feeds)))

    _repeat(pair, *effort.warmup)
    pairs.clear()
    _repeat(pair, effort, fewest)
    return np.asarray(pairs)


def _ratio(times: NDArray[np.float64], log_ratios: Sequence[float]) -> Ratio:
    """Student's interval over independent log-ratios, and the summary of all times [pairs, 2]."""
    count = len(log_ratios)
    centre = float(np.mean(log_ratios))
    half = float(stats.t.ppf(0.975, count - 1) * np.std(log_ratios, ddof=1) / np.sqrt(count))
    value, lower, upper = (float(np.exp(x)) for x in (centre, centre - half, centre + half))
    before, after = (timing_of(column.tolist()) for column in times.T)
    return Ratio(value, lower, upper, before, after)


def _run(runner: BaseRunner, feeds: Feeds) -> float:
    runner.infer(feeds, check_inputs=False)
    return float(runner.last_inference_time()) * 1e3


def _repeat(call: Callable[[], object], effort: Effort, fewest: int) -> None:
    start, done, elapsed = time.perf_counter(), 0, 0.0
    while done < fewest or elapsed < effort.seconds or _wants_more(effort, done, elapsed):
        call()
        done += 1
        elapsed = time.perf_counter() - start


def _wants_more(effort: Effort, done: int, elapsed: float) -> bool:
    return done < effort.runs and elapsed < effort.patience_s
