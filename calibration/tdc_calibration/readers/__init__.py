"""Data sets as batches of a model's inputs: .npz, .npy, images, or what Python gives."""

from tdc_calibration.readers.opening import open_data
from tdc_calibration.readers.preprocessing import PRESETS, Preprocessing, preprocessing
from tdc_calibration.readers.reader import Reader, sample_digests
from tdc_calibration.readers.spec import InputSpec, input_spec

__all__ = [
    "PRESETS",
    "InputSpec",
    "Preprocessing",
    "Reader",
    "input_spec",
    "open_data",
    "preprocessing",
    "sample_digests",
]
