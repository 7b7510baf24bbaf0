"""What calibration measured of a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from tdc_calibration.moments.accumulator import Array
from tdc_calibration.ranges import TensorRange
from tdc_calibration.readers.reader import digest_of
from tdc_deploy import __version__
from tdc_deploy.statistics import LayerStatistics

# Raised when the same model and data would give other moments than before, or the file's form changes.
VERSION = 2


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was measured of a model on `samples` samples.

    model_sha256: of the model's files, as `Source.sha256`. digests: of each sample's content, as
    `Reader.digests`. moments: E[x·xᵀ] of the input patches by layer, as `LayerStatistics` describes; layers
    that share an input share the array. by_channel: those of them that are [C, C]. skipped: why the other
    convolutions have none. ranges: by tensor. accuracy: a share, where the samples have labels.
    """

    model_sha256: str
    digests: tuple[bytes, ...]
    samples: int
    moments: Mapping[str, Array]
    by_channel: tuple[str, ...]
    skipped: Mapping[str, str]
    ranges: Mapping[str, TensorRange]
    accuracy: float | None
    warnings: tuple[str, ...] = ()
    tool_version: str = __version__

    @property
    def data_sha256(self) -> str:
        """Digest of all samples in their order."""
        return digest_of(self.digests)

    @property
    def statistics(self) -> LayerStatistics:
        """The moments as planning and decomposing take them."""
        depends = {
            "version": VERSION,
            "model": self.model_sha256,
            "data": self.data_sha256,
            "samples": self.samples,
            "by_channel": sorted(self.by_channel),
        }
        digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
        return LayerStatistics(self.moments, digest)
