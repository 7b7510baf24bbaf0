"""`tdc-deploy inspect`: what is in a model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tdc_deploy.cli import options
from tdc_deploy.cli.output import Output, ms, number


def inspect(
    model: options.ModelArgument,
    time: Annotated[
        bool, typer.Option("--time", help="Measure each layer alone (stored for plan and build).")
    ] = False,
    shapes: options.ShapesOption = None,
    threads: options.ThreadsOption = 0,
    store: options.StoreOption = None,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """List a model's convolutions and chains: shapes, ranks, FLOPs, time and error.

    Time and error come from the sidecar of a built artifact; --time measures instead.
    """
    from tdc_deploy.inspection import inspect_model

    out = Output(as_json, quiet, verbose)
    with out.progress() as progress:
        found = inspect_model(
            model,
            shapes=options.parse_shapes(shapes),
            threads=threads,
            store=store,
            measure=time,
            progress=progress,
        )
    out.json(asdict(found))
    rows = [
        (
            row.name,
            row.kind,
            row.form,
            "x".join(map(str, row.in_shape)),
            "x".join(map(str, row.out_shape)),
            f"{row.flops / 1e6:.2f}",
            f"{row.params / 1e3:.1f}",
            ms(row.latency_ms),
            number(row.error),
            row.note,
        )
        for row in found.layers
    ]
    out.table(
        ("layer", "kind", "form", "input", "output", "MFLOPs", "kparams", "ms", "error", "note"),
        rows,
    )
    for name, dtype, shape in found.inputs:
        out.text(f"input {name}: {dtype} {shape}")
    for name, dtype, shape in found.outputs:
        out.text(f"output {name}: {dtype} {shape}")
    out.text(
        f"convolutions: {found.flops / 1e6:.1f} MFLOPs, {found.params / 1e3:.1f} thousand parameters; "
        f"opset {found.opset}; {found.chains} chains, {found.fused} of them fused"
    )
    if found.artifact:
        out.text(f"artifact: {found.artifact}")
