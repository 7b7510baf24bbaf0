"""Build: plan, compress, verify, and ship what is closer than the limit and faster than the source."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from tdc_deploy.artifact import Artifact, Beside, Decision, write_artifact
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.files import check_writable
from tdc_deploy.graph.large import check_large, is_large
from tdc_deploy.graph.read import load_checked
from tdc_deploy.plan_file import Plan, check_layers
from tdc_deploy.planner import Goal, Watch, make_plan, other_statistics, with_errors
from tdc_deploy.profiling.measure import FINAL
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress
from tdc_deploy.runtime.session import ENGINE_SUFFIXES
from tdc_deploy.search import Search
from tdc_deploy.sidecar import sidecar_path
from tdc_deploy.types import Precision, Ratio
from tdc_deploy.verify import Comparison

# Fusing changes nothing but the order of rounding.
FUSING_ERROR = 1e-3

# What came in as chains does the same arithmetic fused: less than this is how sessions of one model differ.
SLOWER = 1.01

# How often to plan where the built network misses the limit, and how much below it to aim then.
PLANNING_ATTEMPTS = 3
RETRY_MARGIN = 0.95

# The least share of the error to aim at next where the accuracy drops too much, or the error is infinite.
LEAST_SHARE = 0.5

# Accuracies are quotients: a drop of exactly the limit must not fail by their rounding.
ROUNDING = 1e-9

SUFFIXES = (".onnx",)


@dataclass(frozen=True)
class Terms:
    """On what terms a result is shipped.

    strict: a goal that cannot be met whole is an error. fail_above: so is a measured error above this.
    """

    strict: bool = False
    fail_above: float | None = None


def check_output(output: Path) -> None:
    """Raise TdcError if no artifact can be written there, before any work is done."""
    if output.suffix not in (*SUFFIXES, *ENGINE_SUFFIXES):
        raise TdcError(
            f"output {output}",
            expected="a name that ends in .onnx for ONNX Runtime, in .engine or .plan for TensorRT",
        )
    for written in (output, sidecar_path(output)):
        check_writable(written)


def make_artifact(
    evaluator: Evaluator,
    store: Store,
    output: Path,
    goal: Goal,
    plan: Plan | None,
    terms: Terms,
    progress: Progress,
    *,
    fuse_only: bool = False,
    watch: Watch | None = None,
    beside: Beside | None = None,
    rivals: Rivals | None = None,
    notes: Sequence[str] = (),
) -> Artifact:
    """Build the artifact and write it with its sidecar and what else belongs beside it.

    A given `plan` is applied as it is; without one it is made for the goal. `fuse_only` plans nothing.
    `watch` sees each search for what is shipped. `rivals` builds the network in other precisions; the
    fastest that keeps the limits is shipped. `notes` are warnings that were there before.

    Raises:
        TdcError: the plan does not fit the model, or the terms refuse the result.
    """
    others = other_statistics(plan, evaluator.source)
    if plan is not None:
        check_layers(plan, evaluator.source.plannable)
        plan = with_errors(plan, evaluator.source, kept=evaluator.kept_errors)
    if plan is None and not fuse_only:
        own = plan_and_build(evaluator, store, goal, progress)
    else:
        own = _build(evaluator, plan, goal, progress)
    forms = [own, *(() if rivals is None else rivals(own, plan, fuse_only))]
    built, decision, reason = _choose(forms)
    if watch is not None:
        for search in built.searches:
            watch(search)
    plan, comparison, ratio = built.plan, built.comparison, built.ratio
    missed = missed_goals(plan, goal, decision, ratio)
    warnings = [*missed, *others, *notes_of(plan), *built.warnings, *notes]
    if plan is not None and plan.model_sha256 not in (None, evaluator.source.sha256):
        warnings.append("the plan was made for another model, or for another version of this one")
    hold_to(terms, missed, 0.0 if decision == "source" else comparison.error)
    artifact = Artifact(
        output, sidecar_path(output), decision, reason, plan, comparison, ratio, tuple(warnings)
    )
    model = load_checked(evaluator.source.path) if decision == "source" else built.model
    check_large(model) if is_large(model) else onnx.checker.check_model(model)
    details = {} if rivals is None else _details(forms, built, decision)
    write_artifact(artifact, model, evaluator.source, evaluator.backend.describe(), beside, details)
    return artifact


@dataclass(frozen=True, eq=False)
class Built:
    """A network that was built, with what was measured on it over all inputs, and its limits.

    `max_drop` is that of the accuracy, in percentage points. `details` go to the sidecar, `searches` found
    the plan. `fell_back`: another precision was asked for, and every layer stayed float32.
    """

    plan: Plan | None
    model: onnx.ModelProto
    comparison: Comparison
    ratio: Ratio
    limit: float
    came_compressed: bool
    max_drop: float | None = None
    precision: Precision = "fp32"
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    searches: tuple[Search, ...] = ()
    fell_back: bool = False

    @property
    def compressed(self) -> bool:
        """True if a layer was decomposed."""
        return self.plan is not None and bool(self.plan.selection)

    @property
    def within_limit(self) -> bool:
        """True if it keeps the limits of error and accuracy."""
        return not beyond(self.comparison, self.limit, self.max_drop)

    @property
    def form(self) -> str:
        """Its name among the forms that were built."""
        shape = "tucker" if self.compressed else "fused" if self.came_compressed else "dense"
        return f"{shape} {self.precision}"


Rivals = Callable[[Built, Plan | None, bool], Sequence[Built]]
"""Builds other forms than the float32 one: of a given plan, or what it plans itself; with the last argument
true, of the layers as they came."""


def beyond(comparison: Comparison, max_error: float, max_drop: float | None) -> str:
    """Which limit a network is beyond, in words; nothing if it keeps both."""
    if not comparison.error <= max_error:
        return f"the error {comparison.error:.4g} is above the limit of {max_error:.4g}"
    if max_drop is None:
        return ""
    drop = accuracy_drop(comparison)
    if drop is None:
        return f"no output is class scores, to hold the accuracy to a drop of {max_drop:.3g} points"
    if not drop <= max_drop + ROUNDING:
        return f"the accuracy drops by {drop:.3g} points, above the limit of {max_drop:.3g}"
    return ""


def accuracy_drop(comparison: Comparison) -> float | None:
    """Percentage points of top-1 accuracy that were lost; None without labels."""
    before, after = comparison.accuracy_before, comparison.accuracy_after
    return None if before is None or after is None else 100 * (before - after)


def plan_and_build(evaluator: Evaluator, store: Store, goal: Goal, progress: Progress) -> Built:
    """Plan and build; again with a tighter limit if all inputs show more error than the few that the
    plan was tried on, or a larger drop of accuracy than may be.
    """
    aimed = goal
    searches: list[Search] = []
    for _ in range(PLANNING_ATTEMPTS):
        plan = make_plan(evaluator, store, aimed, progress, watch=searches.append)
        built = _build(evaluator, plan, goal, progress)
        if built.within_limit or not built.compressed:
            break
        aimed = replace(aimed, max_error=tighter(built.comparison, goal, aimed.max_error))
    return replace(built, searches=tuple(searches))


def tighter(comparison: Comparison, goal: Goal, aimed: float) -> float:
    """The error to aim at, after aiming at `aimed` came to this comparison, beyond the goal's limits."""
    share = 1.0
    if not comparison.error <= goal.max_error:
        # Of an error that is no number nothing follows but that less is wanted.
        known = math.isfinite(comparison.error)
        share = goal.max_error / comparison.error if known else LEAST_SHARE
    drop = accuracy_drop(comparison)
    if goal.max_accuracy_drop is not None and drop is not None and drop > goal.max_accuracy_drop:
        # Roughly, the drop grows with the square of the error.
        share = min(share, max(math.sqrt(goal.max_accuracy_drop / drop), LEAST_SHARE))
    return RETRY_MARGIN * share * aimed


def _build(evaluator: Evaluator, plan: Plan | None, goal: Goal, progress: Progress) -> Built:
    """The plan's network with its kernels refined by HOOI, or as the plan was measured if that fits
    and the refined one does not: a closer kernel is not always a closer output.
    """
    progress("verifying", 0, 1)
    selection = {} if plan is None else plan.selection
    limit = goal.max_error if selection else max(goal.max_error, FUSING_ERROR)
    came_compressed, max_drop = bool(evaluator.source.compressed), goal.max_accuracy_drop

    def measured(plan: Plan | None, model: onnx.ModelProto) -> Built:
        comparison, ratio = evaluator.compare(model, FINAL)
        return Built(plan, model, comparison, ratio, limit, came_compressed, max_drop)

    model = evaluator.model(selection, refine=True)
    if plan is not None:
        plan = replace(plan, sequential=bool(evaluator.in_sequence(selection)))
    built = measured(plan, model)
    if not built.within_limit and selection:
        assert plan is not None
        plan = with_errors(plan, evaluator.source, False, evaluator.kept_errors)
        built = measured(plan, evaluator.model(selection))
    progress("verifying", 1, 1)
    return built


def _choose(forms: Sequence[Built]) -> tuple[Built, Decision, str]:
    """The fastest form that may be shipped, or the first, refused."""
    decided = [(built, *_decide(built)) for built in forms]
    shipped = [entry for entry in decided if entry[1] != "source"]
    chosen = min(shipped, key=lambda entry: entry[0].ratio.value, default=decided[0])
    built, decision, reason = chosen
    others = "".join(_beside(entry) for entry in decided if entry is not chosen)
    return built, decision, f"{built.form}: {reason}{others}" if others else reason


def _beside(entry: tuple[Built, Decision, str]) -> str:
    built, decision, reason = entry
    refused = f", refused: {reason}" if decision == "source" else ""
    return f"; {built.form}: {built.ratio.value:.3f}{refused}"


def _decide(built: Built) -> tuple[Decision, str]:
    ratio = built.ratio
    interval = (
        f"{ratio.value:.3f} of the source's time "
        f"(95% interval {ratio.lower:.3f} to {ratio.upper:.3f})"
    )
    if built.fell_back:
        # Its time differs from float32's by noise alone.
        return "source", "every layer stays float32, for the limits: it is a float32 network"
    changed = built.compressed or built.precision != "fp32"
    if not changed and not built.came_compressed:
        return "source", "nothing could be compressed within the limits"
    if not built.within_limit:
        return "source", beyond(built.comparison, built.limit, built.max_drop)
    if changed and not ratio.upper < 1:
        what = "compressed" if built.compressed else built.precision
        return "source", f"the {what} network is not measurably faster: {interval}"
    if not changed and ratio.lower > SLOWER:
        return "source", f"the fused network is measurably slower: {interval}"
    decision: Decision = "compressed" if built.compressed else "converted" if changed else "fused"
    return decision, f"it takes {interval}"


def _details(forms: Sequence[Built], chosen: Built, decision: Decision) -> dict[str, Any]:
    """What the sidecar says besides where several precisions were built."""
    listed = {
        built.form: {
            "time_ms": built.ratio.after.median,
            "ratio": built.ratio.value,
            "error": built.comparison.error,
            "accuracy": built.comparison.accuracy_after,
            "precision": built.precision,
            "shipped": built is chosen and decision != "source",
            **built.details,
        }
        for built in forms
    }
    return {"forms": listed}


def missed_goals(plan: Plan | None, goal: Goal, decision: Decision, ratio: Ratio) -> list[str]:
    """A goal that the result misses: of a latency budget the last and longest measurement decides."""
    missed = [] if plan is None else list(plan.missed)
    budget = goal.latency_budget
    if budget is None:
        return missed
    if decision == "source":
        return [f"the latency budget of {budget:.3g} was not met"] if budget < 1 else []
    if ratio.lower <= budget:
        return []
    planned = (
        f"the latency budget of {budget:.3g} was planned for, but the built network takes "
        f"{ratio.value:.3f} of the dense time"
    )
    return missed or [planned]


def notes_of(plan: Plan | None) -> list[str]:
    """The plan's warnings that are not about its goal."""
    return [] if plan is None else [text for text in plan.warnings if text not in plan.missed]


def hold_to(terms: Terms, missed: Sequence[str], error: float) -> None:
    """Raise TdcError if the terms refuse a result that misses these goals and has this error."""
    if terms.strict and missed:
        raise TdcError(missed[0], fix="relax --max-error or the budget, or build without --strict")
    if terms.fail_above is not None and not error <= terms.fail_above:
        raise TdcError(
            f"the built network's error is {error:.4g}",
            expected=f"at most {terms.fail_above:.4g} (--fail-above)",
            fix="plan with --max-error at that value",
        )
