"""Plan: choose a form and ranks for each layer by measured time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.kept_errors import KeptErrors
from tdc_deploy.plan_file import LayerChoice, Plan, PlanFigures
from tdc_deploy.profiling.layers import LayerProfiler
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress
from tdc_deploy.ranks import milp, tdc
from tdc_deploy.ranks.choices import Choices, OnnxRuntimeChoices
from tdc_deploy.ranks.milp import Selected
from tdc_deploy.ranks.sensitivity import with_sensitivities
from tdc_deploy.ranks.table import CostTable, build_table
from tdc_deploy.search import Search, Tried, first_scale
from tdc_deploy.source import Source
from tdc_deploy.types import check_number

SolverName = Literal["milp", "tdc"]
DEFAULT_MAX_ERROR = 0.1

Watch = Callable[[Search], None]
"""Called with each search once it has ended."""


@dataclass(frozen=True)
class Goal:
    """What a plan must reach.

    latency_budget: share of the dense network's measured time, in (0, 1]; None is "as fast as the
    error limit allows". max_error: limit of the whole network's relative output error. solver: `milp`,
    or `tdc` for the paper's rule, which may be given a `flops_budget` (share of each layer's
    arithmetic) in place of a latency budget and leaves a layer dense that gains less than `theta`.
    max_accuracy_drop: of what is shipped, in percentage points of top-1; needs labels.
    """

    latency_budget: float | None = None
    max_error: float = DEFAULT_MAX_ERROR
    solver: SolverName = "milp"
    flops_budget: float | None = None
    theta: float = tdc.THETA
    max_accuracy_drop: float | None = None

    def __post_init__(self) -> None:
        for name in ("latency_budget", "flops_budget"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise TdcError(f"{name} is {value}", expected="a share above 0 and up to 1")
        check_number("max_error", self.max_error)
        if self.max_accuracy_drop is not None:
            check_number("max_accuracy_drop", self.max_accuracy_drop)
        if self.solver not in get_args(SolverName):
            raise TdcError(
                f"solver is {self.solver!r}", expected=f"one of {', '.join(get_args(SolverName))}"
            )
        if not 0 <= self.theta < 1:
            raise TdcError(f"theta is {self.theta}", expected="a share from 0 to below 1")
        if self.flops_budget is not None and self.solver != "tdc":
            raise TdcError("flops_budget without the tdc solver", fix="add --solver tdc")
        if self.flops_budget is not None and self.latency_budget is not None:
            raise TdcError("both flops_budget and latency_budget", expected="one of them")


class MilpSolver:
    """Exact: least error within a latency, least latency within an error."""

    def within_latency(self, table: CostTable, max_latency_ms: float) -> Selected | None:
        """The selection of least error that fits."""
        return milp.least_error(table, max_latency_ms)

    def within_error(self, table: CostTable, max_error: float) -> Selected:
        """The fastest selection that fits."""
        return milp.least_latency(table, max_error)


@dataclass(frozen=True)
class TdcSolver:
    """The paper's rule at the FLOPs budget that fits."""

    theta: float

    def within_latency(self, table: CostTable, max_latency_ms: float) -> Selected | None:
        """The rule at the largest FLOPs budget that fits."""
        return tdc.tdc_within(table, max_latency_ms, self.theta)

    def within_error(self, table: CostTable, max_error: float) -> Selected:
        """The fastest that the rule gives, at any FLOPs budget, that fits."""
        return tdc.tdc_within_error(table, max_error, self.theta)


def make_plan(
    evaluator: Evaluator,
    store: Store,
    goal: Goal,
    progress: Progress,
    choices: Choices | None = None,
    watch: Watch | None = None,
) -> Plan:
    """Measure the layers, then search for the selection that reaches the goal.

    `choices` are those of the evaluator's backend; without them, of ONNX Runtime.

    Raises:
        TdcError: the model has no convolution that could be decomposed.
    """
    source = evaluator.source
    if not source.plannable and source.compressed:
        said = ("every layer is compressed already",)
        # Whether a latency budget is met is measured on the built network.
        missed = said if goal.flops_budget is not None else ()
        return Plan({}, source.sha256, warnings=said, missed=missed)
    if not source.plannable:
        raise TdcError(
            f"{source.path} has no convolution to decompose",
            expected="at least one ungrouped 2-D convolution in float32 or float16 with stored weights",
            fix="tdc-deploy inspect says why each layer stays dense",
        )
    choices = choices or OnnxRuntimeChoices(paper_grid=goal.solver == "tdc")
    profiler = LayerProfiler(evaluator.backend, store, choices.model, choices.revisions)
    dense_ms, kept = evaluator.dense_ms, evaluator.kept_errors
    table = build_table(source, profiler, progress, choices, kept.errors)
    table = with_sensitivities(table, evaluator.error_alone(), kept.errors, progress)
    table = evaluator.with_roundings(table, progress)
    solver = MilpSolver() if goal.solver == "milp" else TdcSolver(goal.theta)
    scale = first_scale(table, dense_ms)
    search = Search(table, dense_ms, solver, evaluator.trial, progress, scale=scale)
    best = _run(search, goal)
    if watch is not None:
        watch(search)
    return _plan_of(best, table, evaluator, goal, profiler)


def with_errors(
    plan: Plan, source: Source, refined: bool = True, kept: KeptErrors | None = None
) -> Plan:
    """The plan with each candidate's error as its kernel has it: a plan may have been edited.

    With statistics it is what the (`refined`) factors lose of the layer's output energy; `kept` may know.
    """
    error_of = (kept or source.decompositions).error
    layers = {}
    for name, choice in plan.layers.items():
        candidate = choice.candidate
        chosen = name in plan.selection
        error = error_of(name, candidate, refined) if chosen else 0.0
        layers[name] = replace(choice, candidate=replace(candidate, error=error))
    sha256 = None if source.statistics is None else source.statistics.sha256
    return replace(plan, layers=layers, statistics_sha256=sha256, sequential=False)


def other_statistics(plan: Plan | None, source: Source) -> list[str]:
    """A warning if a given plan's layers were decomposed for other inputs than the source's are."""
    wanted = None if plan is None else plan.statistics_sha256
    found = None if source.statistics is None else source.statistics.sha256
    if wanted is None or wanted == found:
        return []
    how = "by their weights alone" if found is None else "for other data"
    said = f"the plan was made for layers decomposed for calibration data, and these are {how}"
    return [f"{said}: give the same --calib for what was planned"]


def _run(search: Search, goal: Goal) -> Tried:
    if goal.flops_budget is None:
        return search.run(goal.latency_budget, goal.max_error)
    done = search.try_selection(tdc.tdc_rule(search.table, goal.flops_budget, goal.theta))
    if done.trial.error <= goal.max_error and done.trial.ratio <= 1:
        return done
    return search.run(None, goal.max_error)


def _plan_of(
    best: Tried, table: CostTable, evaluator: Evaluator, goal: Goal, profiler: LayerProfiler
) -> Plan:
    dense_ms = evaluator.dense_ms
    missed = tuple(_missed(best, table, goal))
    figures = PlanFigures(
        dense_ms=dense_ms,
        predicted_ms=best.predicted * dense_ms,
        measured_ms=best.trial.ratio * dense_ms,
        error=best.trial.error,
        verified=evaluator.samples.real,
    )
    plan = Plan(
        layers={
            name: LayerChoice(candidate, table.rows[name].dense_ms)
            for name, candidate in best.selection.items()
        },
        model_sha256=evaluator.source.sha256,
        solver=goal.solver,
        backend=evaluator.backend.describe(),
        network=figures,
        measurements=profiler.measured,
        warnings=(*missed, *_refusals(profiler)),
        missed=missed,
    )
    # The table's errors are bounds: what is written is what the factors lose.
    if evaluator.source.statistics is None:
        return plan
    return with_errors(plan, evaluator.source, kept=evaluator.kept_errors)


def _refusals(profiler: LayerProfiler) -> list[str]:
    refused = profiler.refused
    if not refused:
        return []
    return [f"{len(refused)} candidates could not be measured; the first: {refused[0].received}"]


def _missed(best: Tried, table: CostTable, goal: Goal) -> list[str]:
    if goal.flops_budget is not None:
        asked = tdc.tdc_rule(table, goal.flops_budget, goal.theta)
        if best.selection != asked:
            return [
                f"the FLOPs budget of {goal.flops_budget:.3g} was not met: its plan is above the error "
                f"limit of {goal.max_error:.3g}, or slower than the dense network"
            ]
    budget = goal.latency_budget
    if budget is None or best.trial.ratio <= budget:
        return []
    return [
        f"the latency budget of {budget:.3g} was not met: the fastest plan found with an error of at "
        f"most {goal.max_error:.3g} takes {best.trial.ratio:.3f} of the dense time"
    ]
