"""`tdc-deploy plugin`: build, find and check the library with the CUDA kernels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from tdc_deploy.cli import options
from tdc_deploy.cli.doctor import print_checks
from tdc_deploy.cli.output import Output
from tdc_deploy.errors import TdcError

app = typer.Typer(
    help="The library with the CUDA kernels and the TensorRT plugin.", no_args_is_help=True
)

MajorOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--tensorrt-major", help="For TensorRT 8, 10 or 11; by default the installed one's."
    ),
]


@app.command("build")
def build(
    architectures: Annotated[
        str,
        typer.Option(
            help="CUDA architectures, such as 80,90; native: those of this machine's GPUs."
        ),
    ] = "native",
    tensorrt_major: MajorOption = None,
    tensorrt_root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder with TensorRT's include/; by default $TENSORRT_ROOT."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="File to write; by default in the user's cache."),
    ] = None,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Build the library with CMake and nvcc, unless the cache already has it."""
    from tdc_deploy.plugin.build import build_plugin

    out = Output(as_json, quiet, verbose)
    with out.progress() as progress:
        path = build_plugin(
            architectures=parse_architectures(architectures),
            tensorrt_major=tensorrt_major,
            tensorrt_root=tensorrt_root,
            output=output,
            progress=progress,
        )
    out.json({"path": str(path)})
    out.text(str(path))


@app.command("path")
def path(
    tensorrt_major: MajorOption = None,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Print the path of the library that this machine uses; exit with 2 if there is none."""
    from tdc_deploy.plugin.locate import find_plugin

    out = Output(as_json, quiet, verbose)
    found = find_plugin(tensorrt_major)
    out.json({"path": str(found)})
    out.text(str(found))


@app.command("check")
def check(
    library: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help="Library; by default the one that `plugin path` prints."),
    ] = None,
    tensorrt_major: MajorOption = None,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Load the library, say what it is, and register it with TensorRT where that is installed."""
    from tdc_deploy.plugin.check import check_plugin
    from tdc_deploy.plugin.locate import find_plugin

    out = Output(as_json, quiet, verbose)
    path = library or find_plugin(tensorrt_major)
    checks = check_plugin(path)
    out.json({"path": str(path), "checks": [asdict(check) for check in checks]})
    out.text(str(path))
    print_checks(out, checks)


def parse_architectures(text: str) -> list[int] | None:
    """The numbers in "80,90"; None for "native"."""
    if text == "native":
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise TdcError(
            f"architectures {text!r}",
            expected="numbers separated by commas, such as 80,90; or native",
        )
    return [int(part) for part in parts]
