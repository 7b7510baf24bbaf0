"""`tdc-train ranks`: ranks from a network's weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdc_deploy.cli.output import Output
from tdc_deploy.cli.plan import print_layers
from tdc_train.cli import options


def ranks(
    model: Annotated[
        Path,
        typer.Argument(help="An ONNX file, a folder of tdc-train fit, or a checkpoint."),
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="Plan file to write, JSON."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="vbmf: variational Bayes; energy: a share of each kernel's energy.")
    ] = "vbmf",
    energy: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="With --method energy, the share to keep, above 0 and below 1; 0.9 if not given."
        ),
    ] = None,
    step: Annotated[int, typer.Option(help="Ranks are multiples of this.")] = 8,
    trust: options.TrustOption = False,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Estimate ranks without training or measuring; fit and tdc-deploy build take the plan."""
    from tdc_deploy.plan_file import plan_to_json
    from tdc_train.rank_estimates import estimate_ranks

    out = Output(as_json, quiet)
    with out.progress() as progress:
        plan = estimate_ranks(
            model,
            method,  # type: ignore[arg-type]  # it is checked there
            energy=energy,
            step=step,
            output=output,
            trust=trust,
            progress=progress,
        )
    out.json(plan_to_json(plan))
    print_layers(out, plan)
    for warning in plan.warnings:
        out.warn(warning)
    if output is not None:
        out.text(f"plan written to {output}")
