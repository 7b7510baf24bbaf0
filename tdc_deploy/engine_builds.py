"""Plans by times of TensorRT engines, and builds of engines, from what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tdc_deploy.accuracy import check_accuracy_limit
from tdc_deploy.artifact import Artifact
from tdc_deploy.asked import Wanted, check_build, check_page, reporter_for
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.backends.tensorrt.machine import Machine, open_machine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.requirements import check_engine_builds, check_engine_plans
from tdc_deploy.builder import Terms
from tdc_deploy.calibrated import with_data
from tdc_deploy.engine_forms import ExactNodes
from tdc_deploy.engine_plan import EnginePlanner, planning_cache
from tdc_deploy.engines import make_engine
from tdc_deploy.files import check_writable
from tdc_deploy.lower_precision import lower_precision
from tdc_deploy.memory import return_large_blocks
from tdc_deploy.plan_file import Plan
from tdc_deploy.planner import Goal
from tdc_deploy.profiling.store import Store
from tdc_deploy.quantising import Quantiser
from tdc_deploy.request import Request, StrPath
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source, read_source

if TYPE_CHECKING:
    from tdc_calibration.options import LowerPrecision

    from tdc_deploy.report.reporter import Reporter


def plan_on_engines(
    request: Request, goal: Goal, options: EngineOptions, page: Path | None
) -> tuple[Plan, Reporter | None]:
    """Plan by times of engines that are built like this; and what makes the report, if any."""
    check_engine_plans(request.model, options.plugin_mode)
    source, samples = _opened(request, options)
    reporter = reporter_for(page, source, goal, request.told(**options.given()))
    machine = open_machine(options, request.progress)
    options = replace(options, timing_cache=planning_cache(options, machine))
    lower = lower_precision("int8" if options.int8 else None, None)
    quantise = None if lower is None else _quantiser(lower, source, samples, goal, request)
    exact = _exact_nodes(options, source, samples, goal, request)
    job = (request, source, samples, machine, options, reporter, quantise, exact)
    with _planner(*job) as planner:
        return planner(goal), reporter


def build_engine(
    request: Request,
    output: Path,
    plan: Plan | StrPath | None,
    wanted: Wanted,
    options: EngineOptions,
    calibrator: str | None,
    terms: Terms,
    report: StrPath | None,
    words: list[str],
) -> Artifact:
    """Build an engine, of a plan or of one that is made for the goal; `words` are what a command for ONNX
    Runtime would say too.
    """
    check_engine_builds(request.model, output, words, options.plugin_mode)
    lower = lower_precision("int8" if options.int8 else None, calibrator)
    page = check_page(report)
    read = [options.timing_cache, *request.files]
    given = check_build(request.model, output, plan, wanted.planned, terms, read, page)
    source, samples = _opened(request, options)
    as_it_came = source.is_compressed and not wanted.planned
    goal = wanted.goal(request.has_data or as_it_came)
    check_accuracy_limit(goal.max_accuracy_drop, samples, source)
    quantise = None if lower is None else _quantiser(lower, source, samples, goal, request)
    exact = _exact_nodes(options, source, samples, goal, request)
    told = request.told(plan, calibrator=calibrator, fail_above=terms.fail_above, **options.given())
    reporter = reporter_for(page, source, goal, told)
    beside = None if reporter is None else reporter.beside
    machine = open_machine(options, request.progress)
    if given is None:  # even then chains are taken back, each by an engine
        options = replace(options, timing_cache=planning_cache(options, machine))
    planning: AbstractContextManager[EnginePlanner | None] = nullcontext()
    if given is None and not as_it_came:
        job = (request, source, samples, machine, options, reporter, quantise, exact)
        planning = _planner(*job)
    with planning as planner:
        return make_engine(
            *(source, samples, output, goal, given, options, terms, machine, request.progress),
            *(planner, beside, quantise, exact, request.threads, request.notes),
        )


@contextmanager
def _planner(
    request: Request,
    source: Source,
    samples: Samples,
    machine: Machine,
    options: EngineOptions,
    reporter: Reporter | None,
    quantise: Quantiser | None,
    exact: ExactNodes | None,
) -> Iterator[EnginePlanner]:
    """What plans by times of engines, with the store that it keeps them in."""
    with Store(request.store, request.notes.append) as measurements:
        yield EnginePlanner(
            *(source, samples, machine, options, measurements, request.threads, request.progress),
            watch=None if reporter is None else reporter.watch,
            quantiser=quantise,
            exact=() if exact is None else exact(source.network),
        )


def _opened(request: Request, options: EngineOptions) -> tuple[Source, Samples]:
    return_large_blocks()
    if options.timing_cache is not None:
        check_writable(options.timing_cache)
    source = read_source(request.model, {**(request.shapes or {}), **options.opt_shapes})
    source, samples, _ = with_data(source, request)
    return source, samples


def _exact_nodes(
    options: EngineOptions, source: Source, samples: Samples, goal: Goal, request: Request
) -> ExactNodes | None:
    """What finds the nodes that fp16 does not hold; nothing in other precisions, or without data."""
    if options.precision != "fp16" or not samples.real:
        return None
    from tdc_calibration.half_engine import ExactNodes as Found

    backend = OnnxRuntimeBackend(request.threads)
    return Found(source, samples, goal, backend, request.progress)


def _quantiser(
    lower: LowerPrecision, source: Source, samples: Samples, goal: Goal, request: Request
) -> Quantiser:
    from tdc_calibration.rivals import engine_quantiser

    backend = OnnxRuntimeBackend(request.threads)
    return engine_quantiser(lower, source, samples, goal, backend, request.progress)
