"""What `--precision` and `--calibrator` ask for besides float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdc_calibration.options import LowerPrecision


def lower_precision(precision: str | None, calibrator: str | None) -> LowerPrecision | None:
    """What to build in besides float32, if anything.

    Raises:
        TdcError: a value that does not exist, or a calibrator without int8.
    """
    if precision is None and calibrator is None:
        return None
    from tdc_calibration.options import LowerPrecision

    lower = LowerPrecision(precision or "fp32", calibrator)  # type: ignore[arg-type]  # it checks
    return None if lower.precision == "fp32" else lower
