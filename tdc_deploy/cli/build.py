"""`tdc-deploy build`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from tdc_deploy.cli import calibration_options, engine_options, options
from tdc_deploy.cli.output import Output, ms, number, share
from tdc_deploy.cli.plan import print_layers
from tdc_deploy.runtime.session import ENGINE_SUFFIXES

if TYPE_CHECKING:
    from tdc_deploy.artifact import Artifact


def build(
    model: options.ModelArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .onnx, or .engine for TensorRT.",
            show_default=False,
        ),
    ],
    inputs: options.InputsOption = None,
    calib: options.CalibOption = None,
    data_aware: options.DataAwareOption = True,
    calib_samples: calibration_options.CalibSamplesOption = None,
    labels: calibration_options.LabelsOption = None,
    preset: calibration_options.PresetOption = None,
    resize: calibration_options.ResizeOption = None,
    crop: calibration_options.CropOption = None,
    mean: calibration_options.MeanOption = None,
    std: calibration_options.StdOption = None,
    pixel_range: calibration_options.PixelRangeOption = None,
    colours: calibration_options.ColoursOption = None,
    interpolation: calibration_options.InterpolationOption = None,
    latency_budget: options.BudgetOption = None,
    speedup: options.SpeedupOption = None,
    max_error: options.MaxErrorOption = None,
    plan: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Apply this plan, made by tdc-deploy plan and perhaps edited."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail if the budget cannot be met within the error limit."),
    ] = False,
    fail_above: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Fail if the measured error is above this."),
    ] = None,
    solver: options.SolverOption = "milp",
    flops_budget: options.FlopsOption = None,
    theta: options.ThetaOption = 0.15,
    shapes: options.ShapesOption = None,
    threads: options.ThreadsOption = 0,
    store: options.StoreOption = None,
    precision: engine_options.PrecisionOption = None,
    io_precision: engine_options.IoPrecisionOption = None,
    min_shapes: engine_options.MinShapesOption = None,
    opt_shapes: engine_options.OptShapesOption = None,
    max_shapes: engine_options.MaxShapesOption = None,
    workspace: engine_options.WorkspaceOption = None,
    builder_optimization_level: engine_options.LevelOption = None,
    timing_cache: engine_options.TimingCacheOption = None,
    version_compatible: engine_options.VersionCompatibleOption = False,
    hardware_compatibility_level: engine_options.HardwareCompatibilityOption = None,
    refit: engine_options.RefitOption = False,
    no_library_tactics: engine_options.NoLibraryTacticsOption = False,
    plugin_mode: engine_options.PluginModeOption = None,
    calibrator: options.CalibratorOption = None,
    max_accuracy_drop: options.MaxAccuracyDropOption = None,
    sparsity: engine_options.SparsityOption = None,
    report: options.ReportOption = None,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Compress, fuse and verify a model, and write a faster one: ONNX, or a TensorRT engine.

    What is written keeps the error limit and is measurably faster than the model that came in; if
    nothing is, that model itself is written, and the output says why.
    """
    from tdc_deploy import api
    from tdc_deploy.sidecar import read_sidecar

    out = Output(as_json, quiet, verbose)
    of_engine = output.suffix in ENGINE_SUFFIXES or io_precision is not None
    said = calibration_options.parse(
        samples=calib_samples,
        labels=labels,
        preset=preset,
        resize=resize,
        crop=crop,
        mean=mean,
        std=std,
        pixel_range=pixel_range,
        colours=colours,
        interpolation=interpolation,
    )
    engine = engine_options.parse(
        precision=precision if of_engine else None,
        io_precision=io_precision,
        min_shapes=min_shapes,
        opt_shapes=opt_shapes,
        max_shapes=max_shapes,
        workspace=workspace,
        level=builder_optimization_level,
        timing_cache=timing_cache,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility_level,
        refit=refit,
        library_tactics=not no_library_tactics,
        plugin_mode=plugin_mode,
        sparsity=sparsity,
    )
    with out.progress() as progress:
        artifact = api.build(
            model,
            output,
            plan=plan,
            inputs=inputs,
            calib=calibration_options.calibration_data(calib, data_aware, said),
            latency_budget=latency_budget,
            speedup=speedup,
            max_error=max_error,
            solver=solver,  # type: ignore[arg-type]  # Goal checks it
            flops_budget=flops_budget,
            theta=theta,
            strict=strict,
            fail_above=fail_above,
            shapes=options.parse_shapes(shapes),
            threads=threads,
            store=store,
            engine=engine,
            precision=None if of_engine else precision,
            calibrator=calibrator,
            max_accuracy_drop=max_accuracy_drop,
            report=report,
            progress=progress,
        )
    out.json(read_sidecar(artifact.path))
    _print(out, artifact, model)
    if report is not None:
        out.text(f"report written to {report}")


def _print(out: Output, artifact: Artifact, model: Path) -> None:
    if artifact.plan is not None and out.verbose:
        print_layers(out, artifact.plan)
    comparison, ratio = artifact.comparison, artifact.ratio
    shipped = not artifact.refused
    label = "after" if shipped else "refused"
    rows = [
        ("time, median ms", ms(ratio.before.median), ms(ratio.after.median)),
        ("time, p95 ms", ms(ratio.before.p95), ms(ratio.after.p95)),
        (
            "ratio (95% interval)",
            "1",
            f"{ratio.value:.3f} ({ratio.lower:.3f} to {ratio.upper:.3f})",
        ),
    ]
    if artifact.plan is not None and artifact.plan.network is not None:
        figures = artifact.plan.network
        rows.append(("ratio as predicted", "1", f"{figures.predicted_ms / figures.dense_ms:.3f}"))
    if comparison.accuracy_before is not None:
        rows.append(
            ("accuracy", share(comparison.accuracy_before), share(comparison.accuracy_after))
        )
    if comparison.top1_agreement is not None:
        rows.append(("top-1 agreement", "100%", share(comparison.top1_agreement)))
    rows += [
        ("relative error", "0", number(comparison.error)),
        ("cosine similarity", "1", f"{comparison.cosine:.5f}"),
        ("file, kB", f"{_kilobytes(model)}", f"{_kilobytes(artifact.path)}" if shipped else "-"),
    ]
    out.table(("", "before", label), rows)
    for warning in artifact.warnings:
        out.warn(warning)
    inputs = f"{comparison.samples} inputs"
    status = f"verified on {inputs}" if artifact.verified else "UNVERIFIED: random inputs only"
    if shipped:
        out.text(f"{artifact.path}: {artifact.decision}, {status}")
    else:
        out.text(f"{artifact.path}: the source model, unchanged: {artifact.reason}")


def _kilobytes(path: Path) -> int:
    from tdc_deploy.graph.read import model_files

    return sum(file.stat().st_size for file in model_files(path)) // 1000
