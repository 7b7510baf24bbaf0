"""`tdc-train eval`: how good and how large a trained network is."""

from __future__ import annotations

from typing import Annotated

import typer

from tdc_deploy.cli.output import Output, share
from tdc_train.cli import options


def evaluate(
    model: options.ModelArgument,
    data: options.DataOption = None,
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = 0,
    trust: options.TrustOption = False,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Accuracy with its 95% interval, multiply-adds and parameters."""
    from tdc_train.training.assess import assess

    out = Output(as_json, quiet)
    with out.progress() as progress:
        found = assess(
            model,
            data=data,
            split=split,
            device=device,
            threads=threads,
            trust=trust,
            progress=progress,
        )
    out.json(found.as_json())
    low, high = found.score.interval
    out.text(
        f"accuracy {share(found.score.accuracy)} (95% interval {share(low)} to {share(high)}) "
        f"on {found.score.images} {split} images; cross-entropy {found.score.loss:.4f}"
    )
    out.text(
        f"{found.macs / 1e6:.2f} million multiply-adds per image, "
        f"{found.parameters / 1e3:.1f} thousand parameters"
    )
