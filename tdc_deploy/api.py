"""The stages as three functions: plan, build, load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from tdc_deploy.accuracy import check_accuracy_limit
from tdc_deploy.artifact import Artifact
from tdc_deploy.asked import Wanted, check_build, check_files, check_page, reporter_for
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.builder import Terms, make_artifact
from tdc_deploy.calibrated import with_data
from tdc_deploy.engine_builds import build_engine, plan_on_engines
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.files import check_writable, write_whole
from tdc_deploy.lower_precision import lower_precision
from tdc_deploy.memory import return_large_blocks
from tdc_deploy.plan_file import Plan, plan_bytes
from tdc_deploy.planner import SolverName, make_plan
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress
from tdc_deploy.ranks.tdc import THETA
from tdc_deploy.request import Request, Shapes, StrPath, request_of
from tdc_deploy.runtime.session import ENGINE_SUFFIXES
from tdc_deploy.source import read_source

if TYPE_CHECKING:
    from tdc_calibration.readers.iterables import Source as FromPython
    from tdc_calibration.stage import CalibrationData

    from tdc_deploy.report.reporter import Reporter


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
    request = request_of(model, inputs, calib, shapes, threads, store, progress)
    wanted = Wanted(latency_budget, speedup, max_error, solver, flops_budget, theta)
    goal = wanted.goal(request.has_data)
    target = None if output is None else Path(output)
    if target is not None:
        check_writable(target)
    page = check_page(report)
    cache = None if engine is None else engine.timing_cache
    check_files([target, page], request.model, [cache, *request.files])
    if engine is not None:
        made, reporter = plan_on_engines(request, goal, engine, page)
    else:
        with _opened(request) as (evaluator, measurements):
            reporter = reporter_for(page, evaluator.source, goal, request.told())
            watch = None if reporter is None else reporter.watch
            made = make_plan(evaluator, measurements, goal, request.progress, watch=watch)
    made = replace(made, warnings=(*made.warnings, *request.notes))
    _write_plan(made, target, reporter)
    return made


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
    request = request_of(model, inputs, calib, shapes, threads, store, progress)
    wanted = Wanted(
        *(latency_budget, speedup, max_error, solver, flops_budget, theta), max_accuracy_drop
    )
    output, terms = Path(output), Terms(strict, fail_above)
    if output.suffix in ENGINE_SUFFIXES:
        engine = engine or EngineOptions()
        if precision is not None:
            engine = engine.with_precision(precision)
        own = (("--plan", plan), ("--inputs", inputs), ("--max-error", max_error))
        words = _words(*own, ("--latency-budget", latency_budget), ("--speedup", speedup))
        job = (request, output, plan, wanted, engine, calibrator, terms, report, words)
        return build_engine(*job)
    if engine is not None:
        raise TdcError(
            f"options of TensorRT engines for {output}",
            expected="an output that ends in .engine or .plan, or none of these options",
        )
    return _build_for_onnxruntime(
        request, output, plan, wanted, precision, calibrator, terms, report
    )


def _build_for_onnxruntime(
    request: Request,
    output: Path,
    plan: Plan | StrPath | None,
    wanted: Wanted,
    precision: str | None,
    calibrator: str | None,
    terms: Terms,
    report: StrPath | None,
) -> Artifact:
    lower = lower_precision(precision, calibrator)
    page = check_page(report)
    planned = wanted.planned
    given = check_build(request.model, output, plan, planned, terms, request.files, page)
    asked = {"precision": precision, "calibrator": calibrator}
    told = request.told(plan, strict=terms.strict, fail_above=terms.fail_above, **asked)
    with _opened(request) as (evaluator, measured):
        fuse_only = plan is None and not planned and evaluator.source.is_compressed
        goal = wanted.goal(request.has_data or fuse_only)
        check_accuracy_limit(goal.max_accuracy_drop, evaluator.given, evaluator.source)
        rivals = None
        if lower is not None:
            from tdc_calibration.rivals import rivals_of

            backend = OnnxRuntimeBackend(request.threads)
            rivals = rivals_of(lower, evaluator, backend, measured, goal, request.progress)
        reporter = reporter_for(page, evaluator.source, goal, told)
        return make_artifact(
            *(evaluator, measured, output, goal, given, terms, request.progress),
            fuse_only=fuse_only,
            watch=None if reporter is None else reporter.watch,
            beside=None if reporter is None else reporter.beside,
            rivals=rivals,
            notes=request.notes,
        )


def _write_plan(made: Plan, target: Path | None, reporter: Reporter | None) -> None:
    files = {} if target is None else {target: plan_bytes(made)}
    if reporter is not None:
        files |= reporter.plan_page(made, target)
    if files:
        write_whole(files)


def _words(*flags: tuple[str, object]) -> list[str]:
    """The flags that have a value which can be typed, as words of a command."""
    return [
        word
        for flag, value in flags
        if isinstance(value, (str, PathLike, int, float))
        for word in (flag, str(value))
    ]


@contextmanager
def _opened(request: Request) -> Iterator[tuple[Evaluator, Store]]:
    return_large_blocks()
    source, samples, in_sequence = with_data(read_source(request.model, request.shapes), request)
    backend = OnnxRuntimeBackend(request.threads)
    with Store(request.store, request.notes.append) as measurements:
        yield Evaluator(source, samples, backend, measurements, None, in_sequence), measurements
