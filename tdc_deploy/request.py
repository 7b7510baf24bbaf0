"""What a plan or a build starts from, as it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdc_deploy.errors import TdcError
from tdc_deploy.progress import Progress, silent
from tdc_deploy.samples import Samples, input_types, random_samples, read_samples
from tdc_deploy.source import Source

if TYPE_CHECKING:
    from tdc_calibration.readers.iterables import Source as FromPython
    from tdc_calibration.stage import CalibrationData

StrPath = str | PathLike[str]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Request:
    """A model, the data for it, and how it is measured; the fields are those of `api.plan`.

    `notes` collects what there is to warn of before anything is made: the result's warnings end with it.

    Raises:
        TdcError: a negative number of threads.
    """

    model: Path
    inputs: Path | None = None
    calibration: CalibrationData | None = None
    shapes: Shapes | None = None
    threads: int = 0
    store: Path | None = None
    progress: Progress = silent
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise TdcError(
                f"threads is {self.threads}", expected="0 (ONNX Runtime's choice) or more"
            )

    @property
    def has_data(self) -> bool:
        """Whether there are real samples to verify on."""
        return self.inputs is not None or self.calibration is not None

    @property
    def files(self) -> list[Path]:
        """All that is read besides the model."""
        given = [path for path in (self.inputs, self.store) if path is not None]
        return given if self.calibration is None else [*given, *self.calibration.files]

    def told(self, plan: object = None, **others: Any) -> dict[str, str]:
        """The options that were given, as a report names them; files without their folders."""
        values = {
            "inputs": self.inputs,
            "shapes": self.shapes or None,
            "threads": self.threads or None,
            "plan": Path(plan) if isinstance(plan, (str, PathLike)) else plan and "given",
            "calib": self.calibration,
            **others,
        }
        return {k: _said(v) for k, v in values.items() if v is not None and v is not False}


def request_of(
    model: StrPath,
    inputs: StrPath | None,
    calib: StrPath | FromPython | CalibrationData | None,
    shapes: Shapes | None,
    threads: int,
    store: StrPath | None,
    progress: Progress | None,
) -> Request:
    """The request of a call from Python."""
    return Request(
        Path(model),
        None if inputs is None else Path(inputs),
        _calibration(calib),
        shapes,
        threads,
        None if store is None else Path(store),
        progress or silent,
    )


def samples_of(source: Source, inputs: Path | None) -> Samples:
    """The samples in a file, or random ones."""
    graph = source.network.graph
    if inputs is None:
        return random_samples(graph, source.inputs)
    return read_samples(inputs, input_types(graph), source.inputs)


def _calibration(calib: StrPath | FromPython | CalibrationData | None) -> CalibrationData | None:
    if calib is None:
        return None
    from tdc_calibration.stage import CalibrationData

    return calib if isinstance(calib, CalibrationData) else CalibrationData(calib)


def _said(value: Any) -> str:
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Mapping):
        return " ".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in value.items())
    return str(value)
