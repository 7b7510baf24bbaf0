"""`tdc-train export`: a trained network as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdc_deploy.cli.output import Output
from tdc_train.cli import options


def export(
    model: options.ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    exporter: Annotated[str, typer.Option(help="torchscript or dynamo.")] = "torchscript",
    opset: Annotated[int, typer.Option(help="ONNX opset; 17 for old TensorRT.")] = 17,
    batch: Annotated[int, typer.Option(help="Images per call; 0: any number.")] = 1,
    inputs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--write-inputs",
            help="Also write validation images and labels here (.npz), for tdc-deploy.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="How many samples --write-inputs writes.")] = 256,
    basis_chains: Annotated[
        bool,
        typer.Option(
            "--basis-chains",
            help="Write shared kernel bases as chains where ONNX Runtime is measured faster here.",
        ),
    ] = False,
    threads: Annotated[
        int,
        typer.Option(
            help="ONNX Runtime's threads where --basis-chains measures; 0: its own choice."
        ),
    ] = 0,
    data: options.DataOption = None,
    trust: options.TrustOption = False,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write a model's ONNX, with its Tucker chains as tdc-deploy build fuses them."""
    from tdc_train.export import constraints_in
    from tdc_train.training.assess import write_onnx

    out = Output(as_json, quiet)
    file = write_onnx(
        model,
        output,
        exporter=exporter,
        opset=opset,
        batch=batch,
        inputs=inputs,
        samples=samples,
        data=data,
        trust=trust,
        basis_chains=basis_chains,
        threads=threads,
    )
    found = constraints_in(output)
    paths = {"checkpoint": str(file), "onnx": str(output), "inputs": inputs and str(inputs)}
    out.json({**paths, "constraints": found})
    out.text(f"{output} from {file}")
    if found is not None:
        kilobytes = found["bits"] / 8000
        out.text(
            f"dense weights in {len(found['layers'])} constraint sets: {kilobytes:.0f} kB compressed, "
            f"{found['compression']:.1f} times smaller"
        )
    if inputs is not None:
        out.text(f"{inputs}: validation images and labels")
        out.text(f"next: tdc-deploy build {output} -o fast.onnx --inputs {inputs}")
