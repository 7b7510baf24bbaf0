"""Options that say how calibration data are read, and the reader's settings that they parse to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from tdc_deploy.errors import TdcError

if TYPE_CHECKING:
    from tdc_calibration.readers import Preprocessing
    from tdc_calibration.stage import CalibrationData

CALIB_HELP = (
    "Samples to calibrate on: an .npz file, a folder of .npy files (one for each input, or one for each "
    "sample), or a folder of images, perhaps in one subfolder for each class."
)

# Typer reads these annotations at run time, on Python 3.10 too.
PresetOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="How images become what the model takes: imagenet, cifar10, unit (0 to 1), symmetric "
        "(-1 to 1) or caffe (BGR, 0 to 255)."
    ),
]
ResizeOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Scale images: their shorter side, 256, or height and width, 256x256."),
]
CropOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Then take this much of the centre, 224 or 224x224; by default the input's."),
]
MeanOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Subtract from pixels: one number, or one for each channel, 0.5,0.5,0.5."),
]
StdOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Divide by, after that."),
]
PixelRangeOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="What white is before mean and std: 1 (default) or 255."),
]
ColoursOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--colours", "--colors", help="Order of the channels: rgb (default) or bgr."),
]
InterpolationOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="How images are scaled: bilinear (default) or bicubic."),
]
LabelsOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="CSV file of class numbers: lines of file,label, or one number for each row."
    ),
]
CalibSamplesOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="At most that many of --calib, spread over the set; all by default."),
]
SamplesOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="At most that many samples, spread over the set; all by default."),
]


@dataclass(frozen=True)
class DataOptions:
    """How calibration data are read; `samples` is the most of them."""

    preprocessing: Preprocessing | None
    labels: Path | None
    samples: int | None


def parse(
    *,
    preset: str | None,
    resize: str | None,
    crop: str | None,
    mean: str | None,
    std: str | None,
    pixel_range: float | None,
    colours: str | None,
    interpolation: str | None,
    labels: Path | None,
    samples: int | None,
) -> DataOptions:
    """What the flags say.

    Raises:
        TdcError: one is not understood.
    """
    from tdc_calibration.readers import preprocessing

    sides = None if resize is None else _sizes("--resize", resize)
    cut = None if crop is None else _sizes("--crop", crop)
    how = preprocessing(
        preset,
        resize=None if sides is None else sides[0] if len(sides) == 1 else (sides[0], sides[1]),
        crop=None if cut is None else (cut[0], cut[-1]),
        pixel_range=pixel_range,
        mean=None if mean is None else _numbers("--mean", mean),
        std=None if std is None else _numbers("--std", std),
        colours=colours,
        interpolation=interpolation,
    )
    return DataOptions(how, labels, samples)


def calibration_data(
    calib: Path | None, data_aware: bool, said: DataOptions
) -> CalibrationData | None:
    """Calibration data for a build or plan, with what was said about them.

    Raises:
        TdcError: something was said, and there are no data.
    """
    if calib is None:
        if said != DataOptions(None, None, None) or not data_aware:
            raise TdcError(
                "how calibration data are read or used, and no calibration data",
                expected="--calib with them",
            )
        return None
    from tdc_calibration.stage import CalibrationData

    return CalibrationData(calib, data_aware, said.preprocessing, said.labels, said.samples)


def _sizes(flag: str, text: str) -> list[int]:
    parts = text.split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise TdcError(
            f"{flag} is {text!r}", expected="pixels as 256, or height x width as 256x320"
        )
    return [int(part) for part in parts]


def _numbers(flag: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise TdcError(
            f"{flag} is {text!r}", expected="one number, or one for each channel: 0.5,0.5,0.5"
        ) from None
