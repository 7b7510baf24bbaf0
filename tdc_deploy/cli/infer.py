"""`tdc-deploy infer`: run an artifact on a file of inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdc_deploy.cli import options
from tdc_deploy.cli.output import Output, share

HEADERS = ("output", "shape", "type", "lowest", "highest")


def infer(
    artifact: options.ArtifactArgument,
    inputs: Annotated[
        Path,
        typer.Option(
            help="An .npz file or a folder of .npy files, named as the inputs, one sample per row; "
            "class numbers in `labels`.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .npz to write.", show_default=False)
    ],
    batch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Samples at a time, where the artifact leaves it open; 16 by default."),
    ] = None,
    threads: options.ThreadsOption = 0,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Run an artifact on many samples and write its outputs, one row per sample."""
    from tdc_deploy.inference import infer as run

    out = Output(as_json, quiet, verbose)
    with out.progress() as progress:
        done = run(artifact, inputs, output, batch=batch, threads=threads, progress=progress)
    described = {
        name: {"shape": list(value.shape), "dtype": value.dtype.name}
        for name, value in done.outputs.items()
    }
    out.json(
        {
            "output": str(output),
            "samples": done.samples,
            "batch": done.batch,
            "accuracy": done.accuracy,
            "outputs": described,
        }
    )
    rows = [
        (name, "x".join(map(str, v.shape)), v.dtype.name, f"{v.min():.4g}", f"{v.max():.4g}")
        for name, v in done.outputs.items()
        if v.size
    ]
    out.table(HEADERS, rows)
    accuracy = "" if done.accuracy is None else f", accuracy {share(done.accuracy)}"
    out.text(f"{output}: {done.samples} samples in batches of {done.batch}{accuracy}")
