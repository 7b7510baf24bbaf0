"""What is measured from data: input readers, activation statistics, FP16 and INT8 rewriting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdc_calibration.calibration import calibrate
    from tdc_calibration.readers import Reader, input_spec, open_data, preprocessing
    from tdc_calibration.result import Calibration
    from tdc_calibration.statistics_file import read_calibration, write_calibration

_HOME = {
    "Calibration": "result",
    "Reader": "readers",
    "calibrate": "calibration",
    "input_spec": "readers",
    "open_data": "readers",
    "preprocessing": "readers",
    "read_calibration": "statistics_file",
    "write_calibration": "statistics_file",
}

__all__ = [
    "Calibration",
    "Reader",
    "calibrate",
    "input_spec",
    "open_data",
    "preprocessing",
    "read_calibration",
    "write_calibration",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
