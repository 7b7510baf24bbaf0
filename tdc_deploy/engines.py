"""Build a TensorRT engine: dense, native chains and fused ones, whole; ship the fastest that is close."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tdc_deploy.artifact import Artifact, Beside, Decision
from tdc_deploy.backends.tensorrt.engine import Engine
from tdc_deploy.backends.tensorrt.machine import Machine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.prepare import Prepared
from tdc_deploy.backends.tensorrt.profiles import shape_ranges
from tdc_deploy.builder import (
    PLANNING_ATTEMPTS,
    RETRY_MARGIN,
    Terms,
    beyond,
    hold_to,
    missed_goals,
    notes_of,
)
from tdc_deploy.engine_forms import (
    FUSED,
    INT8,
    MIXED,
    NATIVE,
    REVERTED,
    SOURCE,
    Built,
    ExactNodes,
    Workshop,
    or_left_out,
)
from tdc_deploy.engine_revert import take_back
from tdc_deploy.engine_shipped import as_built, chain_forms
from tdc_deploy.engine_sidecar import write_engine
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import Network, fused_nodes
from tdc_deploy.plan_file import Plan, check_layers
from tdc_deploy.planned_networks import PlannedNetworks
from tdc_deploy.planner import Goal, other_statistics, with_errors
from tdc_deploy.progress import Progress
from tdc_deploy.quantising import Quantised, Quantiser
from tdc_deploy.samples import Samples
from tdc_deploy.sidecar import sidecar_path
from tdc_deploy.source import Source

Planner = Callable[[Goal], Plan]


def make_engine(
    source: Source,
    samples: Samples,
    output: Path,
    goal: Goal,
    plan: Plan | None,
    options: EngineOptions,
    terms: Terms,
    machine: Machine,
    progress: Progress,
    planner: Planner | None = None,
    beside: Beside | None = None,
    quantise: Quantiser | None = None,
    exact: ExactNodes | None = None,
    threads: int = 0,
    notes: Sequence[str] = (),
) -> Artifact:
    """Build every form of the network, verify each against ONNX Runtime, and write the fastest.

    The source's own form (dense, or the native chains that came in) is among them, so that what is
    shipped is not slower than it. A given `plan` is applied as it is; of one that `planner` makes, what
    makes the network slower is taken back, chain by chain. `quantise` makes the forms in INT8, if there
    shall be some: all layers, chains as convolutions, and as the plan says for each layer. `exact` finds
    what stays float32 in fp16. `notes` are warnings that were there before.

    Raises:
        TdcError: no form keeps the error limit, or the terms refuse the result. Nothing is written then.
    """
    others = other_statistics(plan, source)
    if plan is not None:
        check_layers(plan, source.plannable)
        plan = with_errors(plan, source)
    ranges = shape_ranges(source.network.graph, options, source.inputs)
    workshop = Workshop(
        *(source, samples, ranges, options, machine, progress), quantise, exact, threads
    )
    if planner is not None:
        attempt = _plan_and_build(workshop, planner, goal)
        plan = attempt.plan
    else:
        attempt = _attempt(workshop, plan)
    if planner is not None or plan is None:
        _take_back(workshop, attempt, goal.max_error)
    built = attempt.built
    chosen, reason = choose(built, goal.max_error, goal.max_accuracy_drop)
    decision = _decision(chosen, plan)
    warnings = [
        *others,
        *attempt.warnings,
        *chosen.prepared.warnings,
        *slower_than_source(chosen, built),
    ]
    missed: list[str] = []
    if planner is not None:
        missed = missed_goals(plan, goal, decision, chosen.ratio)
        warnings = [*missed, *notes_of(plan), *warnings]
    # The source's own engine rounds too: its error counts like another form's.
    hold_to(terms, missed, chosen.comparison.error)
    chains = chain_forms(plan, chosen, built)
    artifact = Artifact(
        output,
        sidecar_path(output),
        decision,
        reason,
        as_built(plan, chosen, chains, options.precision),
        chosen.comparison,
        chosen.ratio,
        (*warnings, *notes),
    )
    used = machine.plugin if chosen.prepared.fused else None
    write_engine(
        *(artifact, chosen, built, chains, source, ranges, options, machine.device, used), beside
    )
    return artifact


def networks_of(networks: PlannedNetworks) -> dict[str, Network]:
    """The compressed forms to try, by name; the last is as planned."""
    planned = networks.planned()
    forms = {NATIVE: networks.native()} if networks.selection else {}
    return {**forms, FUSED: planned} if fused_nodes(planned.graph) else forms


def choose(
    built: Mapping[str, Built], max_error: float, max_drop: float | None = None
) -> tuple[Built, str]:
    """The fastest form within the limits of error and, in points, of the loss of accuracy; and why.

    Raises:
        TdcError: none is within it.
    """
    why = {form: beyond(entry.comparison, max_error, max_drop) for form, entry in built.items()}
    close = [entry for form, entry in built.items() if not why[form]]
    if not close:
        errors = ", ".join(f"{form} {entry.comparison.error:.4g}" for form, entry in built.items())
        if all(entry.comparison.error <= max_error for entry in built.values()):
            raise TdcError(
                f"no engine keeps the limit of accuracy: {next(iter(why.values()))}",
                expected="an engine as accurate as the model on ONNX Runtime",
                fix="raise --max-accuracy-drop, or build with --precision fp32",
            )
        raise TdcError(
            f"no engine keeps the error limit of {max_error:.4g}: {errors}",
            expected="an engine close to the model on ONNX Runtime",
            fix="raise --max-error, or build with --precision fp32",
        )
    own = next(iter(built.values()))
    # Another form must be measurably faster than the source's own.
    faster = [entry for entry in close if entry is not own and entry.ratio.upper < 1]
    rivals = (faster or [own]) if own in close else close
    fastest = min(rivals, key=lambda entry: entry.ratio.value)
    listing = ", ".join(
        f"{form} {entry.ratio.value:.3f}" + ("" if entry in close else f" (over the {limit} limit)")
        for form, entry in built.items()
        for limit in ["accuracy" if entry.comparison.error <= max_error else "error"]
    )
    return fastest, f"{fastest.form} engine; time against {own.form}: {listing}"


def slower_than_source(chosen: Built, built: Mapping[str, Built]) -> list[str]:
    """A warning if the source's own form, kept out by its error, would have been faster."""
    own = next(iter(built.values()))
    if chosen is own or not chosen.ratio.lower > 1:
        return []
    return [
        f"the {chosen.form} engine is slower than the model that came in (time {chosen.ratio.value:.3f}): "
        f"the {own.form} engine has an error of {own.comparison.error:.4g}, over the limit; "
        "raise --max-error, or build with a more exact --precision, to have the faster one"
    ]


@dataclass(eq=False)
class _Attempt:
    """What a plan came to: its forms as engines, and what was left out."""

    plan: Plan | None
    networks: PlannedNetworks
    quantised: dict[str, Quantised] = field(default_factory=dict)
    planned_form: str = ""
    built: dict[str, Built] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    exact: frozenset[str] = frozenset()


def _plan_and_build(workshop: Workshop, planner: Planner, goal: Goal) -> _Attempt:
    """Plan and build; again with a tighter limit if no engine of the plan keeps the limit: they are
    verified on all inputs, and round as they do.
    """
    aimed = goal
    for _ in range(PLANNING_ATTEMPTS):
        attempt = _attempt(workshop, planner(aimed))
        errors = {form: entry.comparison.error for form, entry in attempt.built.items()}
        own = errors.pop(SOURCE)
        error = min(errors.values(), default=own)
        if error <= goal.max_error or own > goal.max_error or not math.isfinite(error):
            break
        share = goal.max_error / error
        aimed = replace(aimed, max_error=RETRY_MARGIN * share * aimed.max_error)
    return attempt


def _attempt(workshop: Workshop, plan: Plan | None) -> _Attempt:
    networks = PlannedNetworks(workshop.source, plan, workshop.repair if plan else None)
    forms = networks_of(networks)
    attempt = _Attempt(plan, networks, planned_form=next(reversed(forms), ""))
    attempt.exact = _exact_in(workshop, networks)
    if workshop.quantise is not None:
        forms |= _in_int8(workshop.quantise, attempt)
    ready = _prepare_all(workshop, forms, attempt)
    engines = _build_all(workshop, ready, attempt.warnings)
    _measure_all(workshop, ready, engines, attempt)
    return attempt


def _in_int8(quantise: Quantiser, attempt: _Attempt) -> dict[str, Network]:
    """The forms in INT8: every layer, and where the plan has some in it, those."""
    networks, wanted = attempt.networks, attempt.networks.int8_layers
    unfused, forms = networks.unfused(), {}
    with or_left_out(INT8, attempt.warnings):
        made = attempt.quantised[INT8] = quantise(unfused, None, attempt.exact)
        forms[INT8] = made.network
    if wanted is not None:
        with or_left_out(MIXED, attempt.warnings):
            made = attempt.quantised[MIXED] = quantise(unfused, wanted, attempt.exact)
            forms[MIXED] = networks.mixed(made)
    for form, made in attempt.quantised.items():
        if made.fallen_back:
            said = f"{', '.join(made.fallen_back)} stay fp16, for the limits"
            attempt.warnings.append(f"{form} form: {said}")
    return forms


def _exact_in(workshop: Workshop, networks: PlannedNetworks) -> frozenset[str]:
    """The nodes that stay float32 in the plan's networks, and in those with some of it taken back."""
    own = workshop.source_exact
    return own | workshop.exact_in(networks.unfused()) if networks.selection else own


def _take_back(workshop: Workshop, attempt: _Attempt, max_error: float) -> None:
    """Add the form REVERTED, if it is faster to take some of the plan back."""
    planned = attempt.built.get(attempt.planned_form)
    if planned is None or not planned.comparison.error <= max_error:
        return
    with or_left_out(REVERTED, attempt.warnings):
        found = take_back(
            workshop, attempt.networks, planned, attempt.plan, max_error, attempt.exact
        )
        if found is not None:
            attempt.built[REVERTED] = found


def _prepare_all(
    workshop: Workshop, networks: Mapping[str, Network], attempt: _Attempt
) -> dict[str, Prepared]:
    """Each form for the parser, and warnings: one that the plugin cannot run is left out."""
    ready, warnings = {SOURCE: workshop.source_prepared}, attempt.warnings
    for form, network in networks.items():
        if form in (INT8, MIXED):
            with or_left_out(form, warnings):
                ready[form] = workshop.prepare(network, attempt.exact)
            continue
        try:
            ready[form] = workshop.prepare(network, attempt.exact)
        except TdcError as error:
            if form != FUSED:
                raise
            warnings.append(f"not fused: {error.received}")
    return ready


def _build_all(
    workshop: Workshop, ready: Mapping[str, Prepared], warnings: list[str]
) -> dict[str, Engine]:
    """Every engine before any is measured: a build would disturb the measurement."""
    engines = {SOURCE: workshop.source_engine}
    for form, prepared in ready.items():
        if form != SOURCE:
            with or_left_out(form, warnings):
                engines[form] = workshop.build(prepared)
    return engines


def _measure_all(
    workshop: Workshop,
    ready: Mapping[str, Prepared],
    engines: Mapping[str, Engine],
    attempt: _Attempt,
) -> None:
    for done, (form, engine) in enumerate(engines.items()):
        workshop.progress("verifying engines", done, len(engines))
        if form == SOURCE:
            attempt.built[form] = workshop.measured(form, ready[form], engine)
            continue
        with or_left_out(form, attempt.warnings):
            made = attempt.quantised.get(form)
            layers = () if made is None else made.layers
            attempt.built[form] = workshop.measured(form, ready[form], engine, int8=layers)


def _decision(chosen: Built, plan: Plan | None) -> Decision:
    if chosen.form == SOURCE:
        return "source"
    if chosen.int8 and (plan is None or not plan.selection):
        return "converted"
    return "compressed" if plan is not None and plan.selection else "fused"
