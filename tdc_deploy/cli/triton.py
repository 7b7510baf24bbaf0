"""`tdc-deploy triton`: put an artifact into a Triton model repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from tdc_deploy.cli import options
from tdc_deploy.cli.output import Output
from tdc_deploy.errors import TdcError

if TYPE_CHECKING:
    from tdc_deploy.serving.repository import Added


def triton(
    repository: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of the repository.", show_default=False),
    ],
    name: Annotated[str, typer.Option(help="The model's name for clients.", show_default=False)],
    artifact: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(
            help="Artifact: .onnx, .engine or .plan. With --engine: the one for all other GPUs.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Version number; by default one more than the highest there."),
    ] = None,
    variant: Annotated[
        str,
        typer.Option(
            help="native: Triton's ONNX Runtime or TensorRT backend. python: its Python backend "
            "runs tdc_deploy.load, and needs tdc-deploy in its Python."
        ),
    ] = "native",
    engine: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="An engine for one compute capability, as 8.0=a.engine; repeatable."),
    ] = None,
    max_batch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Largest batch, 0: none. By default the engine's; 8 for ONNX with an open batch."
        ),
    ] = None,
    dynamic_batching: Annotated[
        bool,
        typer.Option("--dynamic-batching/--no-dynamic-batching", help="Batch what waits together."),
    ] = True,
    preferred: Annotated[
        str, typer.Option(help="Batch sizes to prefer, such as 4,8.", show_default=False)
    ] = "",
    queue_delay: Annotated[
        int, typer.Option(help="Microseconds that a request may wait for others.")
    ] = 0,
    instances: Annotated[int, typer.Option(help="Copies of the model per device.")] = 1,
    device: Annotated[
        str, typer.Option(help="auto: a GPU where Triton has one (python: CPU), cpu or gpu.")
    ] = "auto",
    gpus: Annotated[
        str,
        typer.Option(help="With --device gpu: GPUs, such as 0,1; else all.", show_default=False),
    ] = "",
    warmup: Annotated[
        bool, typer.Option("--warmup", help="Run the model before it is called ready.")
    ] = False,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="TensorRT: replay CUDA graphs.")
    ] = False,
    shapes: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Open sizes for warm-up and graphs, as name:1x3x224x224[,name:...]."),
    ] = None,
    threads: options.ThreadsOption = 0,
    plugin: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Plugin library; by default the one that `plugin path` prints."),
    ] = None,
    replace_plugin: Annotated[
        bool, typer.Option("--replace-plugin", help="Replace the repository's plugin library.")
    ] = False,
    config: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="keep or replace a config.pbtxt there with other settings."),
    ] = None,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Add an artifact to a Triton model repository, beside the versions that are there."""
    from tdc_deploy.serving.options import ServingOptions
    from tdc_deploy.serving.repository import add_model

    out = Output(as_json, quiet, verbose)
    added = add_model(
        artifact,
        repository,
        name,
        engines=parse_engines(engine),
        options=ServingOptions(
            variant=variant,  # type: ignore[arg-type]  # ServingOptions checks it
            max_batch=max_batch,
            dynamic_batching=dynamic_batching,
            preferred=parse_numbers("--preferred", preferred),
            queue_delay_us=queue_delay,
            instances=instances,
            device=device,  # type: ignore[arg-type]
            gpus=parse_numbers("--gpus", gpus),
            warmup=warmup,
            cuda_graphs=cuda_graphs,
            threads=threads,
            shapes=options.parse_shapes(shapes),
        ),
        version=version,
        plugin=plugin,
        config=config,  # type: ignore[arg-type]  # add_model checks it
        replace_plugin=replace_plugin,
    )
    _print(out, added)


def _print(out: Output, added: Added) -> None:
    script = None if added.script is None else str(added.script)
    out.json(
        {
            "folder": str(added.folder),
            "version": added.version,
            "files": list(added.files),
            "max_batch_size": added.max_batch_size,
            "start": script,
            "warnings": list(added.warnings),
        }
    )
    for warning in added.warnings:
        out.warn(warning)
    if out.verbose:
        out.text(added.config)
    batches = f"batches up to {added.max_batch_size}" if added.max_batch_size else "fixed batch"
    out.text(f"{added.folder}: version {added.version}, {', '.join(added.files)}, {batches}")
    command = script or f"tritonserver --model-repository={added.folder.parent}"
    out.text(f"start Triton: {command}")


def parse_engines(values: list[str] | None) -> dict[str, Path]:
    """`["8.0=a.engine"]` as a dict."""
    engines = {}
    for entry in values or []:
        capability, _, path = entry.partition("=")
        if not path or capability in engines:
            raise TdcError(
                f"--engine {entry!r}", expected="8.0=a.engine, once for each compute capability"
            )
        engines[capability] = Path(path)
    return engines


def parse_numbers(flag: str, value: str) -> tuple[int, ...]:
    """`"4,8"` as numbers; none for an empty text."""
    parts = [part.strip() for part in value.split(",")] if value else []
    if not all(part.isdecimal() for part in parts):
        raise TdcError(f"{flag} is {value!r}", expected="numbers, separated by commas")
    return tuple(map(int, parts))
