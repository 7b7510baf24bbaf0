"""Build: plan, compress, verify, and ship what is closer than the limit and faster than the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from tdc_deploy.artifact import Artifact, Beside, Decision, write_artifact
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.files import check_writable
from tdc_deploy.graph.large import check_large, is_large
from tdc_deploy.graph.read import load_checked
from tdc_deploy.plan_file import Plan, check_layers
from tdc_deploy.planner import Goal, Watch, make_plan, with_errors
from tdc_deploy.profiling.measure import FINAL
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress
from tdc_deploy.runtime.session import ENGINE_SUFFIXES
from tdc_deploy.sidecar import sidecar_path
from tdc_deploy.types import Ratio
from tdc_deploy.verify import Comparison

# Fusing changes nothing but the order of rounding.
FUSING_ERROR = 1e-3

# What came in as chains does the same arithmetic fused: less than this is how sessions of one model differ.
SLOWER = 1.01

# How often to plan where the built network misses the limit, and how much below it to aim then.
PLANNING_ATTEMPTS = 3
RETRY_MARGIN = 0.95

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
) -> Artifact:
    """Build the artifact and write it with its sidecar and what else belongs beside it.

    A given `plan` is applied as it is; without one it is made for the goal. `fuse_only` plans nothing.
    `watch` sees each search.

    Raises:
        TdcError: the plan does not fit the model, or the terms refuse the result.
    """
    if plan is not None:
        check_layers(plan, evaluator.source.plannable)
        plan = with_errors(plan, evaluator.source)
    if plan is None and not fuse_only:
        built = _plan_and_build(evaluator, store, goal, progress, watch)
    else:
        built = _build(evaluator, plan, goal.max_error, progress)
    plan, comparison, ratio = built.plan, built.comparison, built.ratio
    decision, reason = _decide(built)
    missed = missed_goals(plan, goal, decision, ratio)
    warnings = [*missed, *notes_of(plan)]
    if plan is not None and plan.model_sha256 not in (None, evaluator.source.sha256):
        warnings.append("the plan was made for another model, or for another version of this one")
    hold_to(terms, missed, 0.0 if decision == "source" else comparison.error)
    artifact = Artifact(
        output, sidecar_path(output), decision, reason, plan, comparison, ratio, tuple(warnings)
    )
    model = load_checked(evaluator.source.path) if decision == "source" else built.model
    check_large(model) if is_large(model) else onnx.checker.check_model(model)
    write_artifact(artifact, model, evaluator.source, evaluator.backend.describe(), beside)
    return artifact


@dataclass(frozen=True, eq=False)
class _Built:
    """A network that was built, with what was measured on it over all inputs, and its error limit."""

    plan: Plan | None
    model: onnx.ModelProto
    comparison: Comparison
    ratio: Ratio
    limit: float
    came_compressed: bool

    @property
    def compressed(self) -> bool:
        return self.plan is not None and bool(self.plan.selection)

    @property
    def within_limit(self) -> bool:
        return self.comparison.error <= self.limit


def _plan_and_build(
    evaluator: Evaluator, store: Store, goal: Goal, progress: Progress, watch: Watch | None
) -> _Built:
    """Plan and build; again with a tighter limit if all inputs show more error than the few that the
    plan was tried on.
    """
    aimed = goal
    for _ in range(PLANNING_ATTEMPTS):
        plan = make_plan(evaluator, store, aimed, progress, watch=watch)
        built = _build(evaluator, plan, goal.max_error, progress)
        if built.within_limit or not built.compressed:
            break
        share = goal.max_error / built.comparison.error
        aimed = replace(aimed, max_error=RETRY_MARGIN * share * aimed.max_error)
    return built


def _build(evaluator: Evaluator, plan: Plan | None, max_error: float, progress: Progress) -> _Built:
    """The plan's network with its kernels refined by HOOI, or as the plan was measured if that fits
    and the refined one does not: a closer kernel is not always a closer output.
    """
    progress("verifying", 0, 1)
    selection = {} if plan is None else plan.selection
    limit = max_error if selection else max(max_error, FUSING_ERROR)
    model = evaluator.model(selection, refine=True)
    if plan is not None:
        plan = replace(plan, sequential=bool(evaluator.in_sequence(selection)))
    came_compressed = bool(evaluator.source.compressed)
    built = _Built(plan, model, *evaluator.compare(model, FINAL), limit, came_compressed)
    if not built.within_limit and selection:
        model = evaluator.model(selection)
        assert plan is not None
        plan = with_errors(plan, evaluator.source, refined=False)
        built = _Built(plan, model, *evaluator.compare(model, FINAL), limit, came_compressed)
    progress("verifying", 1, 1)
    return built


def _decide(built: _Built) -> tuple[Decision, str]:
    comparison, ratio = built.comparison, built.ratio
    interval = (
        f"{ratio.value:.3f} of the source's time "
        f"(95% interval {ratio.lower:.3f} to {ratio.upper:.3f})"
    )
    if not built.compressed and not built.came_compressed:
        return "source", "nothing could be compressed within the limits"
    if not built.within_limit:
        error, limit = comparison.error, built.limit
        return "source", f"the error {error:.4g} is above the limit of {limit:.4g}"
    if built.compressed and not ratio.upper < 1:
        return "source", f"the compressed network is not measurably faster: {interval}"
    if not built.compressed and ratio.lower > SLOWER:
        return "source", f"the fused network is measurably slower: {interval}"
    return ("compressed" if built.compressed else "fused"), f"it takes {interval}"


def missed_goals(plan: Plan | None, goal: Goal, decision: Decision, ratio: Ratio) -> list[str]:
    """What the plan missed, and a budget that the result misses."""
    missed = [] if plan is None else list(plan.missed)
    budget = goal.latency_budget
    if budget is not None and not missed and decision != "source" and ratio.lower > budget:
        missed.append(
            f"the latency budget of {budget:.3g} was planned for, but the built network takes "
            f"{ratio.value:.3f} of the dense time"
        )
    if budget is not None and budget < 1 and decision == "source":
        missed.append(f"the latency budget of {budget:.3g} was not met")
    return missed


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
