from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tdc_deploy.backends.onnxruntime import make_session
from tdc_deploy.profiling.measure import (
    BLOCKS,
    FEWEST_PAIRS,
    FEWEST_RUNS,
    MAX_TRIES,
    Effort,
    compare,
    compare_fresh,
    measure,
    timing_of,
)
from tdc_deploy.types import Ratio
from tests.builders import small_cnn

FEEDS = {"x": np.zeros(1, np.float32)}

# No real time is waited for: runs alone decide.
WARMUP = 2
QUICK = Effort(warmup_runs=WARMUP, warmup_s=0.0, runs=48, seconds=0.0)

# Milliseconds through seconds and back, or through logarithm and exponential.
ROUNDING = 1e-9


class ScriptedRunner:
    """Takes as many milliseconds as it is told to; `log` gets its name at every run."""

    def __init__(self, times: Callable[[], float], name: str = "", log: Any = None) -> None:
        self.times = times
        self.name = name
        self.log: list[str] = [] if log is None else log
        self.fed: list[Any] = []
        self.last = 0.0

    def __enter__(self) -> ScriptedRunner:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def infer(self, feeds: Any, check_inputs: bool = True) -> dict[str, Any]:
        assert check_inputs is False
        self.log.append(self.name)
        self.fed.append(feeds)
        self.last = self.times()
        return {}

    def last_inference_time(self) -> float:
        return self.last / 1e3


def from_list(values: list[float]) -> Callable[[], float]:
    iterator: Iterator[float] = iter(values)
    return lambda: next(iterator)


def compared(before: Callable[[], float], after: Callable[[], float], runs: int = 48) -> Ratio:
    effort = Effort(warmup_runs=WARMUP, warmup_s=0.0, runs=runs, seconds=0.0)
    return compare(ScriptedRunner(before), ScriptedRunner(after), FEEDS, effort)


def noisy(rng: np.random.Generator, milliseconds: float, noise: float) -> Callable[[], float]:
    return lambda: float(milliseconds * np.exp(noise * rng.standard_normal()))


def test_median_and_percentiles() -> None:
    timing = timing_of([float(i) for i in range(101)][::-1])
    assert (timing.p10, timing.median, timing.p90, timing.p95, timing.p99) == (10, 50, 90, 95, 99)
    assert timing.runs == 101
    assert timing.spread == 1.6


def test_the_median_ignores_one_outlier() -> None:
    assert timing_of([1.0, 1.0, 1000.0, 1.0, 1.0]).median == 1.0


def test_measure_leaves_the_warm_up_out() -> None:
    runner = ScriptedRunner(from_list([500.0] * WARMUP + [2.0] * 48))
    timing = measure(runner, FEEDS, QUICK)
    assert abs(timing.p99 - 2.0) <= ROUNDING
    assert timing.runs == 48
    assert len(runner.fed) == WARMUP + 48
    assert all(fed is FEEDS for fed in runner.fed)


def test_measure_tries_again_where_something_else_ran() -> None:
    wild, calm = [1.0, 9.0] * 24, [3.0] * 48
    runner = ScriptedRunner(from_list([1.0] * WARMUP + wild + calm))
    assert abs(measure(runner, FEEDS, QUICK).p99 - 3.0) <= ROUNDING


def test_measure_takes_the_calmest_of_a_few_series() -> None:
    series = [[2.0, high] * 24 for high in (8.0, 6.0, 4.0, 10.0)]
    assert len(series) == MAX_TRIES
    times = [1.0] * WARMUP + [time for part in series for time in part]
    runner = ScriptedRunner(from_list(times))
    timing = measure(runner, FEEDS, QUICK)
    assert abs(timing.p90 - 4.0) <= ROUNDING
    assert len(runner.fed) == len(times)


def test_runs_go_on_until_enough_time_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr("tdc_deploy.profiling.measure.time", fake)

    def slow() -> float:
        clock.now += 0.25  # a sum of these is exact
        return 250.0

    runner = ScriptedRunner(slow)
    timing = measure(runner, FEEDS, Effort(1, 1.0, runs=2, seconds=5.0))
    assert timing.runs == 20
    assert len(runner.fed) == 4 + 20


@pytest.mark.parametrize(("run_s", "runs"), [(0.25, 8), (1.0, FEWEST_RUNS)])
def test_slow_models_are_not_run_a_hundred_times(
    monkeypatch: pytest.MonkeyPatch, run_s: float, runs: int
) -> None:
    clock = SimpleNamespace(now=0.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr("tdc_deploy.profiling.measure.time", fake)

    def slow() -> float:
        clock.now += run_s
        return run_s * 1e3

    effort = Effort(0, 0.0, runs=100, seconds=1.0, patience_s=2.0)
    assert measure(ScriptedRunner(slow), FEEDS, effort).runs == runs


def test_half_the_time_is_a_ratio_of_a_half() -> None:
    rng = np.random.default_rng(5)
    ratio = compared(noisy(rng, 4.0, 0.1), noisy(rng, 2.0, 0.1), runs=480)
    assert ratio.lower <= 0.5 <= ratio.upper
    # 480 pairs of 14% noise: a standard error of 1%, and at worst three of them.
    assert abs(ratio.value - 0.5) <= 0.015
    assert 0 < ratio.upper - ratio.lower <= 0.06
    assert abs(ratio.before.median - 4.0) <= 0.1
    assert abs(ratio.after.median - 2.0) <= 0.05


def test_equal_networks_have_a_ratio_of_one() -> None:
    rng = np.random.default_rng(1)
    ratio = compared(noisy(rng, 3.0, 0.1), noisy(rng, 3.0, 0.1))
    assert ratio.lower <= 1 <= ratio.upper
    assert ratio.lower <= ratio.value <= ratio.upper


def test_without_noise_the_ratio_is_exact() -> None:
    ratio = compared(lambda: 4.0, lambda: 1.0)
    for found in (ratio.value, ratio.lower, ratio.upper):
        assert abs(found - 0.25) <= ROUNDING


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_the_interval_holds_the_truth_nineteen_times_in_twenty(noise: float) -> None:
    rng = np.random.default_rng(2)
    ratios = [compared(noisy(rng, 1.0, noise), noisy(rng, 1.0, noise)) for _ in range(300)]
    held = np.mean([ratio.lower <= 1 <= ratio.upper for ratio in ratios])
    # 95% of 300 have a standard deviation of 1.3%; more than 99% would be an idle interval.
    assert 0.90 <= held <= 0.99


def test_the_interval_holds_the_truth_where_some_runs_are_disturbed() -> None:
    rng = np.random.default_rng(3)

    def disturbed() -> float:
        return float(np.exp(0.05 * rng.standard_normal()) * (10 if rng.random() < 0.1 else 1))

    ratios = [compared(disturbed, disturbed) for _ in range(300)]
    held = np.mean([ratio.lower <= 1 <= ratio.upper for ratio in ratios])
    assert held >= 0.90


@pytest.mark.parametrize("slope", [3.0, -0.7])
def test_a_drift_of_the_machine_disturbs_both_alike(slope: float) -> None:
    runs = 480
    clock = SimpleNamespace(runs=0)

    def machine() -> float:
        """A factor that goes from 1 to 1 + slope over the whole comparison."""
        clock.runs += 1
        return float(1 + slope * clock.runs / (2 * (runs + WARMUP)))

    rng = np.random.default_rng(4)
    before, after = noisy(rng, 4.0, 0.01), noisy(rng, 2.0, 0.01)
    ratio = compared(lambda: before() * machine(), lambda: after() * machine(), runs)
    assert ratio.lower <= 0.5 <= ratio.upper
    # The noise leaves 0.1%; measured one after the other they would differ by a factor of 1.5.
    assert abs(ratio.value - 0.5) <= 0.003
    assert ratio.before.spread >= 0.5


def test_who_goes_first_alternates() -> None:
    log: list[str] = []
    runners = [ScriptedRunner(lambda: 1.0, name, log) for name in ("before", "after")]
    compare(runners[0], runners[1], FEEDS, Effort(0, 0.0, runs=48, seconds=0.0))
    assert log == ["before", "after", "after", "before"] * 24


def test_the_one_that_goes_second_gains_nothing() -> None:
    """Whoever runs second finds a warm cache and takes 20% less."""
    turns: list[float] = []

    def turn() -> float:
        turns.append(1.0 if len(turns) % 2 == 0 else 0.8)
        return turns[-1]

    ratio = compared(turn, turn)
    assert ratio.lower <= 1 <= ratio.upper
    assert abs(np.log(ratio.value)) <= 0.01


def test_few_pairs_are_each_a_block_of_their_own() -> None:
    rng = np.random.default_rng(0)
    ratio = compared(noisy(rng, 4.0, 0.02), noisy(rng, 2.0, 0.02), runs=1)
    assert ratio.before.runs == FEWEST_PAIRS < BLOCKS
    # The mean of six log-ratios that vary by 2.8%: 1.2%, and the interval is 2.57 times that on each side.
    assert abs(ratio.value - 0.5) <= 0.5 * 4 * 0.012
    assert 0.01 <= ratio.upper / ratio.lower - 1 <= 0.15


def test_a_slow_model_is_warmed_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr("tdc_deploy.profiling.measure.time", fake)

    def slow() -> float:
        clock.now += 1.0
        return 1000.0

    effort = Effort(3, 0.1, runs=100, seconds=1.0, patience_s=5.0)
    runners = ScriptedRunner(slow), ScriptedRunner(slow)
    ratio = compare(*runners, FEEDS, effort)
    assert ratio.before.runs == FEWEST_PAIRS
    assert [len(runner.fed) for runner in runners] == [1 + FEWEST_PAIRS] * 2


def test_the_warm_up_is_left_out_of_the_comparison() -> None:
    before = from_list([1000.0] * WARMUP + [2.0] * 48)
    after = from_list([1.0] * WARMUP + [1.0] * 48)
    assert abs(compared(before, after).upper - 0.5) <= ROUNDING


def test_sessions_that_differ_for_life_widen_the_interval() -> None:
    """Each session is faster or slower than its twin, and constant: only fresh ones show it."""
    rng = np.random.default_rng(3)

    def fresh() -> ScriptedRunner:
        own = 4.0 * float(np.exp(0.005 * rng.standard_normal()))
        return ScriptedRunner(lambda: own)

    effort = Effort(0, 0.0, runs=48, seconds=0.0)
    within = compare(fresh(), fresh(), FEEDS, effort)
    assert within.upper - within.lower <= 1e-9
    across = compare_fresh(fresh, fresh, FEEDS, effort)
    assert across.lower < 1 < across.upper
    # Six pairs of 0.7%: an interval of about 1.5%.
    assert 0.004 <= across.upper - across.lower <= 0.05


def test_fresh_sessions_take_turns_in_being_made_first() -> None:
    made: list[str] = []

    def maker(name: str, milliseconds: float) -> Callable[[], ScriptedRunner]:
        def make() -> ScriptedRunner:
            made.append(name)
            return ScriptedRunner(lambda: milliseconds)

        return make

    effort = Effort(0, 0.0, runs=48, seconds=0.0)
    ratio = compare_fresh(maker("before", 4.0), maker("after", 2.0), FEEDS, effort)
    assert abs(ratio.value - 0.5) <= 1e-12
    assert (ratio.before.median, ratio.after.median) == (4.0, 2.0)
    assert made[:4] == ["after", "before", "before", "after"]


def test_a_session_does_not_keep_what_it_was_made_of() -> None:
    content = small_cnn().SerializeToString()
    before = sys.getrefcount(content)
    session = make_session(content, threads=1)
    assert session.get_inputs()
    assert sys.getrefcount(content) == before
