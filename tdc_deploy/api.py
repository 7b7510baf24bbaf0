"""The stages as three functions: plan, build, load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdc_deploy.accuracy import check_accuracy_limit
from tdc_deploy.artifact import Artifact
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.backends.tensorrt.machine import open_machine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.requirements import check_engine_builds, check_engine_plans
from tdc_deploy.builder import Terms, check_output, make_artifact
from tdc_deploy.engine_forms import Quantise
from tdc_deploy.engine_plan import EnginePlanner, planning_cache
from tdc_deploy.engines import make_engine
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.files import check_distinct, check_writable, write_whole
from tdc_deploy.graph.read import model_files
from tdc_deploy.memory import return_large_blocks
from tdc_deploy.plan_file import Plan, plan_bytes, read_plan
from tdc_deploy.planner import DEFAULT_MAX_ERROR, Goal, SolverName, make_plan
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress, silent
from tdc_deploy.ranks.tdc import THETA
from tdc_deploy.runtime.session import ENGINE_SUFFIXES
from tdc_deploy.samples import Samples, input_types, random_samples, read_samples
from tdc_deploy.sidecar import sidecar_path
from tdc_deploy.source import Source, read_source

if TYPE_CHECKING:
    from tdc_calibration.options import LowerPrecision
    from tdc_calibration.readers.iterables import Source as FromPython
    from tdc_calibration.stage import Calibrated, CalibrationData

    from tdc_deploy.report.reporter import Reporter

StrPath = str | PathLike[str]
Shapes = Mapping[str, tuple[int, ...]]
GoalOf = Callable[[bool], Goal]
"""The goal, once it is known whether there are real inputs or no need of them."""


def plan(
    model: StrPath,
    *,
    inputs: StrPath | None = None,
    calib: StrPath | FromPython | CalibrationData | None = None,
    latency_budget: float | None = None,
    speedup: float | None = None,
    max_error: float | None = None,
    solver: SolverName = "milp",
    flops_budget: float | None = None,
    theta: float = THETA,
    shapes: Shapes | None = None,
    threads: int = 0,
    store: StrPath | None = None,
    engine: EngineOptions | None = None,
    output: StrPath | None = None,
    report: StrPath | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Choose a form and ranks for every convolution of an ONNX model by measured time.

    Args:
        model: an ONNX file.
        inputs: an .npz file or folder of .npy files with at least 8 samples (`read_samples`).
        calib: data to decompose the layers for and to correct them by, or more about them
            (`tdc_calibration.stage.CalibrationData`): an .npz file, a folder of .npy files or images,
            samples from Python, or statistics that `tdc-deploy calibrate` saved. Without `inputs`, every
            other sample verifies instead.
        latency_budget: share of the dense network's time to reach, in (0, 1].
        speedup: the same as 1 / latency_budget, at least 1; not both.
        max_error: limit of the relative output error; 0.1 if there are `inputs` or `calib`, else required.
        solver: `milp` or `tdc`; flops_budget and theta belong to `tdc` (see `Goal`).
        shapes: input shapes to plan at; unknown batch sizes are 1.
        threads: ONNX Runtime's threads within an operator; 0 leaves it to ONNX Runtime.
        store: the file of measurements; the user's cache directory if None.
        engine: plan by times of TensorRT engines that are built like this, in place of ONNX Runtime's.
        output: a file to write the plan to, as JSON.
        report: an HTML page to write about it; needs the extra `report`.
        progress: called as progress(what, done, total).

    Raises:
        TdcError: a bad file, value or combination of them.
    """
    calibration = _calibration(calib)
    wanted = inputs is not None or calibration is not None
    goal = _goal(wanted, latency_budget, speedup, max_error, solver, flops_budget, theta)
    target = None if output is None else Path(output)
    if target is not None:
        check_writable(target)
    page = _checked_report(report)
    cache = None if engine is None else engine.timing_cache
    _check_files([target, page], Path(model), [inputs, store, cache, *_files_of(calibration)])
    given = _given(inputs, shapes, threads, None, calib=calibration)
    if engine is not None:
        made, reporter = _plan_on_engines(
            *(Path(model), inputs, calibration, goal, shapes, threads, store, engine, page),
            progress or silent,
        )
        _write_plan(made, target, reporter)
        return made
    opened = _opened(model, inputs, calibration, shapes, threads, store, progress or silent)
    with opened as (evaluator, measurements):
        reporter = _reporter(page, evaluator.source, goal, given)
        watch = None if reporter is None else reporter.watch
        made = make_plan(evaluator, measurements, goal, progress or silent, watch=watch)
    _write_plan(made, target, reporter)
    return made


def _write_plan(made: Plan, target: Path | None, reporter: Reporter | None) -> None:
    files = {} if target is None else {target: plan_bytes(made)}
    if reporter is not None:
        files |= reporter.plan_page(made, target)
    if files:
        write_whole(files)


def build(
    model: StrPath,
    output: StrPath,
    *,
    plan: Plan | StrPath | None = None,
    inputs: StrPath | None = None,
    calib: StrPath | FromPython | CalibrationData | None = None,
    latency_budget: float | None = None,
    speedup: float | None = None,
    max_error: float | None = None,
    solver: SolverName = "milp",
    flops_budget: float | None = None,
    theta: float = THETA,
    strict: bool = False,
    fail_above: float | None = None,
    shapes: Shapes | None = None,
    threads: int = 0,
    store: StrPath | None = None,
    engine: EngineOptions | None = None,
    precision: str | None = None,
    calibrator: str | None = None,
    max_accuracy_drop: float | None = None,
    report: StrPath | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Compress, fuse, verify and write a model and its sidecar: an ONNX file that any ONNX Runtime runs, or
    a TensorRT engine.

    The other arguments are those of `plan`. What is shipped keeps `max_error` and is measurably faster
    than the model that came in; if nothing is, that model itself is shipped, and the artifact says why.
    A model that came in as Tucker chains is fused, and shipped unless that is slower.

    Args:
        output: the file to write; `.onnx`, or `.engine` or `.plan` for TensorRT, which is planned for by
            times of engines.
        plan: a plan or its file, applied as it is.
        strict: raise where the budget cannot be met within `max_error`.
        fail_above: raise where the measured error is above this.
        engine: how a TensorRT engine is built.
        precision: fp16 or int8: build in it too, and ship it if it is faster within the limits; of an
            engine, what it computes in.
        calibrator: of int8: minmax, entropy, percentile, mse, or auto for the best of them.
        max_accuracy_drop: refuse what loses more percentage points of top-1 accuracy; needs labels.
        report: an HTML page to write with the artifact, both or neither; needs the extra `report`.

    Raises:
        TdcError: a bad file, value or combination of them, or a result that the terms refuse; nothing
            is written then.
    """
    source_path, output_path = Path(model), Path(output)
    calibration = _calibration(calib)
    budgets = (latency_budget, speedup, flops_budget)
    planned = any(budget is not None for budget in budgets)

    def goal_of(known: bool) -> Goal:
        goal = _goal(known, latency_budget, speedup, max_error, solver, flops_budget, theta)
        return replace(goal, max_accuracy_drop=max_accuracy_drop)

    if output_path.suffix in ENGINE_SUFFIXES:
        if precision is not None:
            engine = (engine or EngineOptions()).with_precision(precision)
        own = (("--plan", plan), ("--inputs", inputs), ("--max-error", max_error))
        check_engine_builds(
            source_path,
            output_path,
            _words(*own, ("--latency-budget", latency_budget), ("--speedup", speedup)),
            (engine or EngineOptions()).plugin_mode,
        )
        return _build_engine(
            *(
                source_path,
                output_path,
                plan,
                planned,
                inputs,
                calibration,
                goal_of,
                shapes,
                threads,
            ),
            store,
            engine or EngineOptions(),
            calibrator,
            Terms(strict, fail_above),
            report,
            progress or silent,
        )
    if engine is not None:
        raise TdcError(
            f"options of TensorRT engines for {output_path}",
            expected="an output that ends in .engine or .plan, or none of these options",
        )
    lower = _lower_precision(precision, calibrator)
    page = _checked_report(report)
    read = [inputs, store, *_files_of(calibration)]
    given = _checked(source_path, output_path, plan, planned, fail_above, read, page)
    asked = {"calib": calibration, "precision": precision, "calibrator": calibrator}
    told = _given(inputs, shapes, threads, plan, strict=strict, fail_above=fail_above, **asked)
    opened = _opened(source_path, inputs, calibration, shapes, threads, store, progress or silent)
    with opened as (evaluator, measured):
        fuse_only = plan is None and not planned and evaluator.source.is_compressed
        goal = goal_of(inputs is not None or calibration is not None or fuse_only)
        check_accuracy_limit(goal.max_accuracy_drop, evaluator.given, evaluator.source)
        rivals = None
        if lower is not None:
            from tdc_calibration.rivals import rivals_of

            backend = OnnxRuntimeBackend(threads)
            rivals = rivals_of(lower, evaluator, backend, measured, goal, progress or silent)
        reporter = _reporter(page, evaluator.source, goal, told)
        return make_artifact(
            evaluator,
            measured,
            output_path,
            goal,
            given,
            Terms(strict, fail_above),
            progress or silent,
            fuse_only=fuse_only,
            watch=None if reporter is None else reporter.watch,
            beside=None if reporter is None else reporter.beside,
            rivals=rivals,
        )


def _lower_precision(precision: str | None, calibrator: str | None) -> LowerPrecision | None:
    """What to build in besides float32, if anything."""
    if precision is None and calibrator is None:
        return None
    from tdc_calibration.options import LowerPrecision

    lower = LowerPrecision(precision or "fp32", calibrator)  # type: ignore[arg-type]  # it checks
    return None if lower.precision == "fp32" else lower


def _words(*flags: tuple[str, object]) -> list[str]:
    """The flags that have a value which can be typed, as words of a command."""
    return [
        word
        for flag, value in flags
        if isinstance(value, (str, PathLike, int, float))
        for word in (flag, str(value))
    ]


def _build_engine(
    source_path: Path,
    output: Path,
    plan: Plan | StrPath | None,
    planned: bool,
    inputs: StrPath | None,
    calibration: CalibrationData | None,
    goal_of: GoalOf,
    shapes: Shapes | None,
    threads: int,
    store: StrPath | None,
    options: EngineOptions,
    calibrator: str | None,
    terms: Terms,
    report: StrPath | None,
    progress: Progress,
) -> Artifact:
    lower = _lower_precision("int8" if options.int8 else None, calibrator)
    read = [inputs, options.timing_cache, store, *_files_of(calibration)]
    page = _checked_report(report)
    given = _checked(source_path, output, plan, planned, terms.fail_above, read, page)
    source, samples = _opened_for_engines(
        source_path, inputs, calibration, shapes, threads, options, progress
    )
    fuse_only = given is None and not planned and source.is_compressed
    real = inputs is not None or calibration is not None
    goal = goal_of(real or (source.is_compressed and not planned))
    check_accuracy_limit(goal.max_accuracy_drop, samples, source)
    quantise = None if lower is None else _quantiser(lower, source, samples, goal, progress)
    asked = {
        "calib": calibration,
        "calibrator": calibrator,
        "fail_above": terms.fail_above,
        **options.given(),
    }
    told = _given(inputs, shapes, threads, plan, **asked)
    reporter = _reporter(page, source, goal, told)
    beside = None if reporter is None else reporter.beside
    machine = open_machine(options, progress)
    job = (source, samples, output, goal, given)
    if given is None:  # even then chains are taken back, each by an engine
        options = replace(options, timing_cache=planning_cache(options, machine))
    if given is not None or fuse_only:
        return make_engine(
            *job, options, terms, machine, progress, beside=beside, quantise=quantise
        )
    with Store(None if store is None else Path(store)) as measurements:
        planning = replace(options, int8=False)  # ranks are planned in fp16
        planner = EnginePlanner(
            *(source, samples, machine, planning, measurements, threads, progress),
            watch=None if reporter is None else reporter.watch,
        )
        return make_engine(*job, options, terms, machine, progress, planner, beside, quantise)


def _quantiser(
    lower: LowerPrecision, source: Source, samples: Samples, goal: Goal, progress: Progress
) -> Quantise:
    from tdc_calibration.rivals import engine_quantiser

    return engine_quantiser(lower, source, samples, goal, progress)


def _plan_on_engines(
    model: Path,
    inputs: StrPath | None,
    calibration: CalibrationData | None,
    goal: Goal,
    shapes: Shapes | None,
    threads: int,
    store: StrPath | None,
    options: EngineOptions,
    page: Path | None,
    progress: Progress,
) -> tuple[Plan, Reporter | None]:
    check_engine_plans(model, options.plugin_mode)
    source, samples = _opened_for_engines(
        model, inputs, calibration, shapes, threads, options, progress
    )
    told = _given(inputs, shapes, threads, None, calib=calibration, **options.given())
    reporter = _reporter(page, source, goal, told)
    machine = open_machine(options, progress)
    options = replace(options, timing_cache=planning_cache(options, machine), int8=False)
    with Store(None if store is None else Path(store)) as measurements:
        planner = EnginePlanner(
            *(source, samples, machine, options, measurements, threads, progress),
            watch=None if reporter is None else reporter.watch,
        )
        return planner(goal), reporter


def _opened_for_engines(
    model: Path,
    inputs: StrPath | None,
    calibration: CalibrationData | None,
    shapes: Shapes | None,
    threads: int,
    options: EngineOptions,
    progress: Progress,
) -> tuple[Source, Samples]:
    _check_threads(threads)
    return_large_blocks()
    if options.timing_cache is not None:
        check_writable(options.timing_cache)
    source = read_source(model, {**(shapes or {}), **options.opt_shapes})
    if calibration is None:
        return source, _samples(source, inputs)
    found = _calibrated(source, inputs, calibration, OnnxRuntimeBackend(threads), progress)
    return found.source, found.samples


def _checked(
    source_path: Path,
    output: Path,
    plan: Plan | StrPath | None,
    planned: bool,
    fail_above: float | None,
    read: Sequence[StrPath | None],
    page: Path | None,
) -> Plan | None:
    """The plan, once the files and values are found to fit each other; nothing long is done."""
    if plan is not None and planned:
        raise TdcError(
            "both a plan and a budget", expected="one of them: a plan is applied as it is"
        )
    path = plan if isinstance(plan, (str, PathLike)) else None
    given = read_plan(Path(path)) if path is not None else plan
    _check_fail_above(fail_above)
    check_output(output)
    _check_files([output, sidecar_path(output), page], source_path, [path, *read])
    return given  # type: ignore[return-value]  # a path was read


def _check_files(
    written: Sequence[Path | None], model: Path, read: Sequence[StrPath | None]
) -> None:
    outputs = [path for path in written if path is not None]
    twice = {path.resolve() for path in outputs}
    if len(twice) < len(outputs):
        raise TdcError(f"{outputs[-1]} is to be written twice", fix="choose another name for one")
    check_distinct(outputs, [*model_files(model), *(Path(p) for p in read if p is not None)])


def _checked_report(path: StrPath | None) -> Path | None:
    if path is None:
        return None
    from tdc_deploy.report.reporter import check_report

    check_report(Path(path))
    return Path(path)


def _reporter(
    page: Path | None, source: Source, goal: Goal, options: Mapping[str, str]
) -> Reporter | None:
    if page is None:
        return None
    from tdc_deploy.report.reporter import Reporter

    return Reporter(page, source, goal, options)


def _given(
    inputs: StrPath | None, shapes: Shapes | None, threads: int, plan: object, **others: Any
) -> dict[str, str]:
    """The options that were given, as a report names them; files without their folders."""
    values = {
        "inputs": None if inputs is None else Path(inputs),
        "shapes": shapes or None,
        "threads": threads or None,
        "plan": Path(plan) if isinstance(plan, (str, PathLike)) else plan and "given",
        **others,
    }
    return {k: _said(v) for k, v in values.items() if v is not None and v is not False}


def _said(value: Any) -> str:
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Mapping):
        return " ".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in value.items())
    return str(value)


@contextmanager
def _opened(
    model: StrPath,
    inputs: StrPath | None,
    calibration: CalibrationData | None,
    shapes: Shapes | None,
    threads: int,
    store: StrPath | None,
    progress: Progress,
) -> Iterator[tuple[Evaluator, Store]]:
    _check_threads(threads)
    return_large_blocks()
    source = read_source(Path(model), shapes)
    backend = OnnxRuntimeBackend(threads)
    in_sequence = None
    if calibration is None:
        samples = _samples(source, inputs)
    else:
        found = _calibrated(source, inputs, calibration, backend, progress)
        source, samples, in_sequence = found.source, found.samples, found.in_sequence
    with Store(None if store is None else Path(store)) as measurements:
        yield Evaluator(source, samples, backend, measurements, None, in_sequence), measurements


def _calibration(calib: StrPath | FromPython | CalibrationData | None) -> CalibrationData | None:
    if calib is None:
        return None
    from tdc_calibration.stage import CalibrationData

    return calib if isinstance(calib, CalibrationData) else CalibrationData(calib)


def _calibrated(
    source: Source,
    inputs: StrPath | None,
    calibration: CalibrationData,
    backend: OnnxRuntimeBackend,
    progress: Progress,
) -> Calibrated:
    from tdc_calibration.stage import calibrated

    path = calibration.path
    if inputs is not None and path is not None and Path(inputs).resolve() == path.resolve():
        raise TdcError(
            f"{inputs} both to calibrate and to verify on",
            expected="samples to verify on that calibration does not see",
            fix="leave --inputs out: every other sample of --calib then verifies",
        )
    samples = None if inputs is None else _samples(source, inputs)
    return calibrated(source, calibration, samples, backend, progress)


def _files_of(calibration: CalibrationData | None) -> list[Path]:
    return [] if calibration is None else calibration.files


def _check_threads(threads: int) -> None:
    if threads < 0:
        raise TdcError(f"threads is {threads}", expected="0 (ONNX Runtime's choice) or more")


def _samples(source: Source, inputs: StrPath | None) -> Samples:
    graph = source.network.graph
    if inputs is None:
        return random_samples(graph, source.inputs)
    return read_samples(Path(inputs), input_types(graph), source.inputs)


def _goal(
    has_inputs: bool,
    latency_budget: float | None,
    speedup: float | None,
    max_error: float | None,
    solver: SolverName,
    flops_budget: float | None,
    theta: float,
) -> Goal:
    if speedup is not None:
        if latency_budget is not None:
            raise TdcError("both latency_budget and speedup", expected="one of them")
        if not speedup >= 1:
            raise TdcError(f"speedup is {speedup}", expected="a factor of at least 1")
        latency_budget = 1 / speedup
    if max_error is None:
        if not has_inputs:
            raise TdcError(
                "neither inputs nor an error limit",
                expected="--inputs with real samples, which the result is verified on",
                fix="give --inputs, or set --max-error for an UNVERIFIED result on random inputs",
            )
        max_error = DEFAULT_MAX_ERROR
    return Goal(latency_budget, max_error, solver, flops_budget, theta)


def _check_fail_above(value: float | None) -> None:
    if value is not None and not value >= 0:
        raise TdcError(f"fail_above is {value}", expected="a number of at least 0")
