"""Second moments of convolutions' input patches, in as few multiplications as their structure allows."""

from tdc_calibration.moments.accumulator import Accumulator
from tdc_calibration.moments.choice import MAX_PATCH, accumulator_of

__all__ = ["MAX_PATCH", "Accumulator", "accumulator_of"]
