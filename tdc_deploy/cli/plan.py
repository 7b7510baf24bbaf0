"""`tdc-deploy plan`: choose ranks, and write them where a person can edit them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from tdc_deploy.cli import calibration_options, engine_options, options
from tdc_deploy.cli.output import Output, ms, number

if TYPE_CHECKING:
    from tdc_deploy.plan_file import Plan
    from tdc_deploy.types import Candidate


def plan(
    model: options.ModelArgument,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="Plan file to write, JSON."),
    ] = None,
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
    solver: options.SolverOption = "milp",
    flops_budget: options.FlopsOption = None,
    theta: options.ThetaOption = 0.15,
    shapes: options.ShapesOption = None,
    threads: options.ThreadsOption = 0,
    store: options.StoreOption = None,
    backend: Annotated[
        str,
        typer.Option(
            help="Whose times count: onnxruntime (this CPU) or tensorrt (engines on this GPU)."
        ),
    ] = "onnxruntime",
    precision: engine_options.PlanPrecisionOption = None,
    io_precision: engine_options.IoPrecisionOption = None,
    opt_shapes: engine_options.OptShapesOption = None,
    workspace: engine_options.WorkspaceOption = None,
    builder_optimization_level: engine_options.LevelOption = None,
    timing_cache: engine_options.TimingCacheOption = None,
    version_compatible: engine_options.VersionCompatibleOption = False,
    hardware_compatibility_level: engine_options.HardwareCompatibilityOption = None,
    refit: engine_options.RefitOption = False,
    no_library_tactics: engine_options.NoLibraryTacticsOption = False,
    plugin_mode: engine_options.PluginModeOption = None,
    sparsity: engine_options.SparsityOption = None,
    report: options.ReportOption = None,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Choose a form and ranks for each layer by measured time; `build --plan` applies them."""
    from tdc_deploy import api
    from tdc_deploy.plan_file import plan_to_json

    out = Output(as_json, quiet, verbose)
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
    engine = engine_options.for_backend(
        backend,
        engine_options.parse(
            precision=precision,
            io_precision=io_precision,
            min_shapes=None,
            opt_shapes=opt_shapes,
            max_shapes=None,
            workspace=workspace,
            level=builder_optimization_level,
            timing_cache=timing_cache,
            version_compatible=version_compatible,
            hardware_compatibility=hardware_compatibility_level,
            refit=refit,
            library_tactics=not no_library_tactics,
            plugin_mode=plugin_mode,
            sparsity=sparsity,
        ),
    )
    with out.progress() as progress:
        made = api.plan(
            model,
            inputs=inputs,
            calib=calibration_options.calibration_data(calib, data_aware, said),
            latency_budget=latency_budget,
            speedup=speedup,
            max_error=max_error,
            solver=solver,  # type: ignore[arg-type]  # Goal checks it
            flops_budget=flops_budget,
            theta=theta,
            shapes=options.parse_shapes(shapes),
            threads=threads,
            store=store,
            engine=engine,
            output=output,
            report=report,
            progress=progress,
        )
    out.json(plan_to_json(made))
    print_layers(out, made)
    _print_network(out, made, output)
    if report is not None:
        out.text(f"report written to {report}")


def print_layers(out: Output, plan: Plan) -> None:
    """The table of layers, each with its form, its times alone and its error."""
    rows = [
        (
            name,
            _form(choice.candidate),
            ms(choice.dense_ms),
            ms(choice.candidate.latency_ms),
            number(choice.candidate.error),
        )
        for name, choice in plan.layers.items()
    ]
    out.table(("layer", "form", "dense ms", "ms", "energy lost"), rows)


def _form(candidate: Candidate) -> str:
    """The form and ranks; a chain that is not to be fused says so, and a layer in INT8."""
    native = candidate.form == "tucker2" and candidate.implementation == "native"
    int8 = candidate.precision == "int8"
    return f"{candidate}{' native' if native else ''}{' int8' if int8 else ''}"


def _print_network(out: Output, plan: Plan, output: Path | None) -> None:
    figures = plan.network
    if figures is not None:
        out.text(
            f"network: {figures.dense_ms:.3f} ms dense; {figures.predicted_ms:.3f} ms predicted, "
            f"{figures.measured_ms:.3f} ms measured ({figures.ratio:.3f} of dense); "
            f"error {figures.error:.3g}" + ("" if figures.verified else " on random inputs")
        )
    out.text(f"layer measurements taken: {plan.measurements}")
    for warning in plan.warnings:
        out.warn(warning)
    if output is not None:
        out.text(f"plan written to {output}")
