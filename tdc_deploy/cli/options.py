"""Options that several commands share, and what they parse to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdc_deploy.errors import TdcError

# Typer reads these annotations at run time, on Python 3.10 too.
ModelArgument = Annotated[Path, typer.Argument(help="ONNX model.", show_default=False)]
ArtifactArgument = Annotated[
    Path, typer.Argument(help="ONNX model or TensorRT engine.", show_default=False)
]
InputsOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Samples to verify on: an .npz file or a folder of .npy files, named as the model's "
        "inputs, one sample per row, at least 8; class numbers in `labels`."
    ),
]
FeedsOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Samples to feed, a batch of them: an .npz file or a folder of .npy files, named as the "
        "model's inputs, one sample per row."
    ),
]
CalibOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Data to decompose the layers for and to correct them by: .npz, a folder of .npy files or of "
        "images, or statistics of tdc-deploy calibrate. Without --inputs every other sample verifies."
    ),
]
DataAwareOption = Annotated[
    bool,
    typer.Option(
        "--data-aware/--no-data-aware",
        help="Whether --calib decomposes the layers, or only corrects and verifies.",
    ),
]
ShapesOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--shapes",
        "--input-shapes",
        help="Shapes of the inputs, as name:1x3x224x224[,name:...].",
    ),
]
ThreadsOption = Annotated[
    int, typer.Option(help="ONNX Runtime's threads within an operator; 0: its own choice.")
]
StoreOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="File of measurements; by default in the user's cache directory."),
]
ReportOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="HTML page about the result to write with it; needs the extra `report`."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print each step and every layer.")
]
BudgetOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Share of the dense network's measured time to reach, above 0 and up to 1."),
]
SpeedupOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="The same as a factor of at least 1; not both."),
]
MaxErrorOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        help="Limit of the output's relative error, which no budget overrides. 0.1 with --inputs or "
        "--calib; must be given without."
    ),
]
CalibratorOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="With --precision int8, how ranges are chosen: auto (default: the best on samples held "
        "out), minmax, entropy, percentile or mse."
    ),
]
MaxAccuracyDropOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Limit of the loss of top-1 accuracy, in percentage points; needs `labels`."),
]
SolverOption = Annotated[
    str, typer.Option(help="milp: least error in the budget. tdc: the paper's rule.")
]
FlopsOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="tdc only: share of each layer's arithmetic that may remain."),
]
ThetaOption = Annotated[
    float, typer.Option(help="tdc only: a layer that gains less than this share stays dense.")
]


def parse_shapes(values: list[str] | None) -> dict[str, tuple[int, ...]]:
    """`["a:1x3x32x32,b:1x10"]` as a dict; names may themselves hold colons."""
    shapes = {}
    for entry in ",".join(values or []).split(","):
        if not entry:
            continue
        name, _, sizes = entry.rpartition(":")
        parts = sizes.split("x")
        if not name or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise TdcError(
                f"shape {entry!r}", expected="name:1x3x224x224, several separated by commas"
            )
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def parse_sizes(flag: str, value: str | None, count: int) -> tuple[int, ...]:
    """`"1x64x56x56"` or `"1,64,56,56"` as ints of at least 1; one alone stands for two."""
    parts = _parts(value)
    if len(parts) == 1 and count == 2:
        parts *= 2
    if len(parts) != count or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise TdcError(
            f"{flag} is {'missing' if value is None else repr(value)}",
            expected=f"{count} numbers of at least 1, separated by x or commas",
        )
    return tuple(map(int, parts))


def parse_pads(flag: str, value: str) -> tuple[int, int, int, int]:
    """`"1"`, `"1x0"` (vertical, horizontal) or `"1,0,1,0"` as top, left, bottom, right."""
    parts = _parts(value)
    if len(parts) not in (1, 2, 4) or not all(part.isdigit() for part in parts):
        raise TdcError(
            f"{flag} is {value!r}", expected="1, 2 or 4 numbers, separated by x or commas"
        )
    top, left, bottom, right = map(int, parts * (4 // len(parts)))
    return top, left, bottom, right


def _parts(value: str | None) -> list[str]:
    return (value or "").replace("x", ",").split(",")
