"""What calibration data do for a build: statistics, samples that correct, and others that verify."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from tdc_calibration.calibration import calibrate
from tdc_calibration.readers import (
    Preprocessing,
    Reader,
    input_spec,
    open_data,
    sample_digests,
)
from tdc_calibration.readers.iterables import Source as FromPython
from tdc_calibration.result import Calibration
from tdc_calibration.sequential import MOST_SAMPLES, SequentialChoice
from tdc_calibration.statistics_file import is_calibration, read_calibration
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import InSequence
from tdc_deploy.progress import Progress
from tdc_deploy.samples import MIN_SAMPLES, SPLIT_FROM, Samples
from tdc_deploy.source import Source

StrPath = str | PathLike[str]

# Of the samples that verify, what is taken into memory.
VERIFYING = 512


@dataclass(frozen=True)
class CalibrationData:
    """Calibration data as they were asked for.

    data: what `open_data` takes, or a file of statistics. data_aware: whether they decompose the layers;
    else they only correct and verify. preprocessing, labels, samples: as in `open_data`, `most` samples.
    """

    data: StrPath | FromPython
    data_aware: bool = True
    preprocessing: Preprocessing | None = None
    labels: Path | None = None
    samples: int | None = None

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
        return self.path if self.path is not None and is_calibration(self.path) else None

    def __str__(self) -> str:
        said = "samples from Python" if self.path is None else self.path.name
        return said if self.data_aware else f"{said}, not data-aware"


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A source that is decomposed for what was measured, and the samples to repair and verify with."""

    source: Source
    samples: Samples
    in_sequence: InSequence | None
    warnings: tuple[str, ...] = ()


def calibrated(
    source: Source,
    calibration: CalibrationData,
    inputs: Samples | None,
    backend: OnnxRuntimeBackend,
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
        _check_file(file, calibration, inputs)
        assert inputs is not None
        saved = read_calibration(file, source)
        _check_unseen(source, inputs, saved.digests, str(file))
        return _data_aware(source, saved, inputs, backend)
    reader = open_data(
        calibration.path or calibration.data,  # type: ignore[arg-type]  # a path or what is none
        input_spec(source),
        preprocessing=calibration.preprocessing,
        labels=calibration.labels,
        most=calibration.samples,
    )
    if inputs is not None:
        _check_unseen(source, inputs, reader.digests, reader.where)
    seen, samples = _roles(reader, inputs)
    if not calibration.data_aware:
        return Calibrated(source, samples, None)
    found = calibrate(source, seen, ranges=False, threads=backend.threads, progress=progress)
    return _data_aware(source, found, samples, backend)


def _check_file(file: Path, calibration: CalibrationData, inputs: Samples | None) -> None:
    if inputs is None:
        raise TdcError(
            f"{file} holds statistics, and no samples to verify on",
            expected="--inputs beside it",
            fix="give --inputs, or the data themselves as --calib",
        )
    said = (calibration.preprocessing, calibration.labels, calibration.samples)
    if any(value is not None for value in said) or not calibration.data_aware:
        raise TdcError(
            f"how data are read or used, for {file}, which holds statistics",
            expected="nothing of the kind: statistics decompose the layers, as they are",
        )


def _check_unseen(source: Source, inputs: Samples, digests: tuple[bytes, ...], where: str) -> None:
    """Raise TdcError if inputs are among the samples that calibrate: they would verify nothing."""
    known = set(digests)
    seen = sum(digest in known for digest in sample_digests(inputs, input_spec(source)))
    if seen:
        raise TdcError(
            f"inputs to verify on, {seen} of {len(inputs)} of which are samples of {where}",
            expected="samples to verify on that calibration does not see",
            fix="give others as --inputs, or the data as --calib alone: every other sample then verifies",
        )


def _data_aware(
    source: Source, found: Calibration, samples: Samples, backend: OnnxRuntimeBackend
) -> Calibrated:
    seen, _ = samples.split()
    choice = SequentialChoice(seen, backend)
    return Calibrated(
        source.with_statistics(found.statistics), samples, choice, tuple(found.warnings)
    )


def _roles(reader: Reader, inputs: Samples | None) -> tuple[Reader, Samples]:
    """The samples to measure statistics on, and those to verify on, which know those to repair with."""
    if inputs is not None:
        few = len(reader) < MIN_SAMPLES  # too few to correct by: half of the inputs do, as ever
        repairs = None if few else reader.samples(MOST_SAMPLES)
        return reader, replace(inputs, repairs=repairs)
    if len(reader) < SPLIT_FROM:
        return reader, reader.samples(VERIFYING)
    seen, held_out = reader.halves()
    return seen, replace(held_out.samples(VERIFYING), repairs=seen.samples(MOST_SAMPLES))
