"""`tdc-deploy calibrate`: measure a model on data, and keep what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdc_deploy.cli import calibration_options, options
from tdc_deploy.cli.output import Output, number, share

if TYPE_CHECKING:
    from tdc_calibration import Calibration

MOMENT_HEADERS = ("layer", "second moment")
RANGE_HEADERS = ("tensor", "lowest", "highest", "channels")


def calibrate(
    model: options.ModelArgument,
    calib: Annotated[Path, typer.Option(help=calibration_options.CALIB_HELP, show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File of statistics to write.", show_default=False),
    ],
    samples: calibration_options.SamplesOption = None,
    labels: calibration_options.LabelsOption = None,
    preset: calibration_options.PresetOption = None,
    resize: calibration_options.ResizeOption = None,
    crop: calibration_options.CropOption = None,
    mean: calibration_options.MeanOption = None,
    std: calibration_options.StdOption = None,
    pixel_range: calibration_options.PixelRangeOption = None,
    colours: calibration_options.ColoursOption = None,
    interpolation: calibration_options.InterpolationOption = None,
    shapes: options.ShapesOption = None,
    threads: options.ThreadsOption = 0,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Measure the activations of a model on data, and write the statistics for later builds.

    Second moments of the inputs of the layers that can be decomposed, ranges and histograms of what
    convolutions and matrix products take, and the accuracy where the samples have labels.
    """
    from tdc_calibration import calibrate as measure

    out = Output(as_json, quiet, verbose)
    data = calibration_options.parse(
        preset=preset,
        resize=resize,
        crop=crop,
        mean=mean,
        std=std,
        pixel_range=pixel_range,
        colours=colours,
        interpolation=interpolation,
        labels=labels,
        samples=samples,
    )
    with out.progress() as progress:
        found = measure(
            model,
            calib,
            output,
            preprocessing=data.preprocessing,
            labels=data.labels,
            samples=data.samples,
            shapes=options.parse_shapes(shapes),
            threads=threads,
            progress=progress,
        )
    _print(out, found, output)


def _print(out: Output, found: Calibration, output: Path) -> None:
    out.json(
        {
            "output": str(output),
            "samples": found.samples,
            "accuracy": found.accuracy,
            "model_sha256": found.model_sha256,
            "data_sha256": found.data_sha256,
            "moments": {name: len(moment) for name, moment in found.moments.items()},
            "by_channel": list(found.by_channel),
            "skipped": dict(found.skipped),
            "ranges": {name: [r.minimum, r.maximum] for name, r in found.ranges.items()},
            "warnings": list(found.warnings),
        }
    )
    if out.verbose:
        by_channel = set(found.by_channel)
        sizes = {name: f"{len(m)} x {len(m)}" for name, m in found.moments.items()}
        rows = [(n, s + (", by channel" if n in by_channel else "")) for n, s in sizes.items()]
        out.table(
            MOMENT_HEADERS, [*rows, *((n, f"none: {why}") for n, why in found.skipped.items())]
        )
        out.table(
            RANGE_HEADERS,
            [
                (name, number(r.minimum), number(r.maximum), len(r.lowest))
                for name, r in found.ranges.items()
            ],
        )
    for warning in found.warnings:
        out.warn(warning)
    accuracy = "" if found.accuracy is None else f", accuracy {share(found.accuracy)}"
    coarse = f" ({len(found.by_channel)} by channel only)" if found.by_channel else ""
    out.text(
        f"{output}: {found.samples} samples, {len(found.moments)} layers{coarse}, "
        f"{len(found.ranges)} ranges{accuracy}"
    )
