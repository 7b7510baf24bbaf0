"""What calibration data do for a build: statistics, samples that correct, and others that verify."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from tdc_calibration.readers import Preprocessing, Reader, input_spec, open_data
from tdc_calibration.readers.iterables import Source as FromPython
from tdc_calibration.sequential import MOST_SAMPLES, SequentialChoice
from tdc_calibration.statistics import is_statistics, measure_statistics, read_statistics
from tdc_deploy.backends.base import Backend
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import InSequence
from tdc_deploy.progress import Progress
from tdc_deploy.samples import SPLIT_FROM, Samples
from tdc_deploy.source import Source
from tdc_deploy.statistics import LayerStatistics

StrPath = str | PathLike[str]

# Of the samples that verify, what is taken into memory.
VERIFYING = 512


@dataclass(frozen=True)
class CalibrationData:
    """Calibration data as they were asked for.

    data: what `open_data` takes, or a file of statistics. data_aware: whether they decompose the layers;
    else they only correct and verify. preprocessing, labels: as in `open_data`.
    """

    data: StrPath | FromPython
    data_aware: bool = True
    preprocessing: Preprocessing | None = None
    labels: Path | None = None

    @property
    def path(self) -> Path | None:
        """Where the data are, if they are not from Python."""
        return Path(self.data) if isinstance(self.data, (str, PathLike)) else None

    @property
    def files(self) -> list[Path]:
        """All that is read."""
        return [path for path in (self.path, self.labels) if path is not None]

    @property
    def statistics_file(self) -> Path | None:
        """The data, if they are statistics that were measured before."""
        return self.path if self.path is not None and is_statistics(self.path) else None

    def __str__(self) -> str:
        said = "samples from Python" if self.path is None else self.path.name
        return said if self.data_aware else f"{said}, not data-aware"


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A source that is decomposed for what was measured, and the samples to repair and verify with."""

    source: Source
    samples: Samples
    in_sequence: InSequence | None


def calibrated(
    source: Source,
    calibration: CalibrationData,
    inputs: Samples | None,
    backend: Backend,
    progress: Progress,
) -> Calibrated:
    """Measure a source's statistics, and say which samples have which part in a build.

    With `inputs` these verify, all of them; without, every other calibration sample does, and is not
    measured. Statistics from a file need inputs, which then correct too, as they do without calibration.

    Raises:
        TdcError: the data or the file do not fit the model, or nothing is left to verify on.
    """
    file = calibration.statistics_file
    if file is not None:
        return _from_file(source, calibration, file, inputs, backend)
    reader = open_data(
        calibration.path or calibration.data,  # type: ignore[arg-type]  # a path or what is none
        input_spec(source),
        preprocessing=calibration.preprocessing,
        labels=calibration.labels,
    )
    seen, samples = _roles(reader, inputs)
    if not calibration.data_aware:
        return Calibrated(source, samples, None)
    return _data_aware(source, measure_statistics(source, seen, progress), samples, backend)


def _from_file(
    source: Source,
    calibration: CalibrationData,
    file: Path,
    inputs: Samples | None,
    backend: Backend,
) -> Calibrated:
    if inputs is None:
        raise TdcError(
            f"{file} holds statistics, and no samples to verify on",
            expected="--inputs beside them",
            fix="give --inputs, or the data themselves as --calib",
        )
    if calibration.preprocessing is not None or calibration.labels is not None:
        raise TdcError(
            f"a preset, size, mean, std or labels for {file}",
            expected="them for data: statistics are taken as they are",
        )
    if not calibration.data_aware:
        raise TdcError(
            f"{file} as calibration that is not data-aware",
            expected="data: statistics serve nothing else",
        )
    return _data_aware(source, read_statistics(file, source), inputs, backend)


def _data_aware(
    source: Source, statistics: LayerStatistics, samples: Samples, backend: Backend
) -> Calibrated:
    seen, _ = samples.split()
    choice = SequentialChoice(seen, backend)
    return Calibrated(source.with_statistics(statistics), samples, choice)


def _roles(reader: Reader, inputs: Samples | None) -> tuple[Reader, Samples]:
    """The samples to measure statistics on, and those to verify on, which know those to repair with."""
    if inputs is not None:
        return reader, replace(inputs, repairs=reader.samples(MOST_SAMPLES))
    if len(reader) < SPLIT_FROM:
        return reader, reader.samples(VERIFYING)
    seen, held_out = reader.halves()
    return seen, replace(held_out.samples(VERIFYING), repairs=seen.samples(MOST_SAMPLES))
