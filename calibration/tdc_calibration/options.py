"""What a user may ask of a build in fewer bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tdc_calibration.calibrators import CALIBRATORS, Calibrator
from tdc_deploy.errors import TdcError
from tdc_deploy.types import Precision

CalibratorChoice = Literal["auto", "minmax", "entropy", "percentile", "mse"]


@dataclass(frozen=True)
class LowerPrecision:
    """The precision to build in besides float32, and for int8 how ranges are chosen.

    `calibrator` auto takes the one with the least error of the network's output on samples that it was
    not calibrated on.

    Raises:
        TdcError: a value that does not exist, or a calibrator without int8.
    """

    precision: Precision = "int8"
    calibrator: CalibratorChoice | None = None

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise TdcError(
                f"--precision is {self.precision!r} for ONNX Runtime",
                expected=f"one of {', '.join(get_args(Precision))}",
            )
        if self.calibrator is None:
            return
        if self.calibrator not in get_args(CalibratorChoice):
            raise TdcError(
                f"--calibrator is {self.calibrator!r}",
                expected=f"one of {', '.join(get_args(CalibratorChoice))}",
            )
        if self.precision != "int8":
            raise TdcError(
                f"--calibrator with --precision {self.precision}",
                expected="a calibrator for ranges of 8 bits",
                fix="add --precision int8",
            )

    @property
    def chosen(self) -> Calibrator | None:
        """The calibrator that is asked for; None for the best one."""
        return next((c for c in CALIBRATORS if c == self.calibrator), None)
