"""`tdc-deploy tactics`: which kernel configurations should be fast for a layer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from tdc_deploy.cli import options
from tdc_deploy.cli.output import Output

if TYPE_CHECKING:
    from tdc_deploy.profiling.analytical.devices import Device
    from tdc_deploy.profiling.analytical.report import TacticRow, TacticsReport
    from tdc_deploy.profiling.analytical.shapes import TuckerShape

HEADERS = ("tactic", "number", "us", "launch", "stages: us and what limits them", "blocks", "waves")
PAPER_HEADERS = ("C,N,HxW", "picked", "measured best", "ms", "its place", "volume, best / picked")
THIS = "this"


def tactics(
    device: Annotated[str, typer.Option(help="GPU to predict for; this: the one here.")] = THIS,
    shape: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Input of the layer, as 1x64x56x56 (batch, channels, height, width)."),
    ] = None,
    ranks: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Ranks r_in,r_out; rounded up to multiples of 8."),
    ] = None,
    out_channels: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Output channels; as many as input channels by default."),
    ] = None,
    kernel: Annotated[str, typer.Option(help="Kernel size, as 3 or 3x1.")] = "3",
    stride: Annotated[str, typer.Option(help="Stride, as 2 or 2x1.")] = "1",
    padding: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Padding, as 1, 1x0 or top,left,bottom,right; by default half the kernel."
        ),
    ] = None,
    dilation: Annotated[str, typer.Option(help="Dilation, as 1 or 2x2.")] = "1",
    residual: Annotated[bool, typer.Option("--residual", help="A residual is added.")] = False,
    precision: Annotated[str, typer.Option(help="fp16, tf32 or fp32.")] = "fp16",
    top: Annotated[int, typer.Option(help="Tactics to list.")] = 16,
    paper: Annotated[
        bool, typer.Option("--paper", help="TDC's own model on the cases its authors measured.")
    ] = False,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Rank the kernels' tactics for a layer by predicted time. Nothing is measured.

    --verbose lists every constant of the prediction and where it comes from.
    """
    out = Output(as_json, quiet, verbose)
    if paper:
        _print_paper(out, _device("A100" if device == THIS else device))
        return
    from tdc_deploy.profiling.analytical.report import tactics_report

    sizes = _shape(shape, ranks, out_channels, kernel, stride, padding, dilation, residual)
    report = tactics_report(sizes, _device(device), precision, top)  # type: ignore[arg-type]
    _print(out, report)


def _device(name: str) -> Device:
    from tdc_deploy.profiling.analytical.chips import find_device
    from tdc_deploy.profiling.analytical.driver import this_device

    return this_device() if name == THIS else find_device(name)


def _shape(
    shape: str | None,
    ranks: str | None,
    out_channels: int | None,
    kernel: str,
    stride: str,
    padding: str | None,
    dilation: str,
    residual: bool,
) -> TuckerShape:
    from tdc_deploy.profiling.analytical.shapes import TuckerShape
    from tdc_deploy.types import ConvLayer, Ranks

    n, c, h, w = options.parse_sizes("--shape", shape, 4)
    r_in, r_out = options.parse_sizes("--ranks", ranks, 2)
    kernel_h, kernel_w = options.parse_sizes("--kernel", kernel, 2)
    strides = options.parse_sizes("--stride", stride, 2)
    dilation_h, dilation_w = options.parse_sizes("--dilation", dilation, 2)
    if padding is None:
        top, left = dilation_h * (kernel_h - 1) // 2, dilation_w * (kernel_w - 1) // 2
        pads = (top, left, top, left)
    else:
        pads = options.parse_pads("--padding", padding)
    layer = ConvLayer(
        "",
        c,
        c if out_channels is None else out_channels,
        (kernel_h, kernel_w),
        (strides[0], strides[1]),
        pads,
        (dilation_h, dilation_w),
        1,
        "float32",
        n,
        (h, w),
    )
    return TuckerShape.of_layer(layer, Ranks(r_in, r_out), residual)


def _print(out: Output, report: TacticsReport) -> None:
    out.json(asdict(report))
    roof = report.roofline
    out.table(
        HEADERS,
        [_row(row) for row in report.tactics],
        title=f"{report.device}, {report.precision}: {report.note}",
    )
    out.text(
        f"{report.legal} tactics are legal; roofline {roof.us:.2f} us "
        f"({roof.flops / 1e6:.1f} MFLOPs {roof.compute_us:.2f} us, "
        f"{roof.bytes / 1e6:.2f} MB {roof.memory_us:.2f} us)"
    )
    guesses = sum(constant.origin == "guess" for constant in report.constants)
    out.text(f"{guesses} of {len(report.constants)} constants are guesses (--verbose lists them)")
    if out.verbose:
        for constant in report.constants:
            origin = ": ".join(filter(None, (constant.origin, constant.source)))
            out.text(f"{constant.name}: {constant.value:.12g} {constant.unit} ({origin})")


def _row(row: TacticRow) -> tuple[object, ...]:
    stages = ", ".join(f"{stage.name} {stage.us:.2f} {stage.bound}" for stage in row.stages)
    counts = ("+".join(map(str, counts)) for counts in (row.blocks, row.waves))
    return (row.name, row.number, f"{row.predicted_us:.2f}", f"{row.start_us:.2f}", stages, *counts)


def _print_paper(out: Output, device: Device) -> None:
    from tdc_deploy.profiling.analytical.tdc_paper import compare_measured

    rows = compare_measured(device)
    out.json([asdict(row) for row in rows])
    out.table(
        PAPER_HEADERS,
        [
            (
                row.case.shape,
                row.pick.tile,
                row.case.best,
                f"{row.case.ms:.4f}",
                f"{row.place} of {row.tiles}",
                f"{row.best.volume / row.pick.volume:.2f}",
            )
            for row in rows
        ],
        title=f"TDC's model for {device.name}; times: measured by its authors on an A100",
    )
