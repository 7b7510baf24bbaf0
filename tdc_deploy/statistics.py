"""What calibration measured of a model's layers, in the form that planning and decomposing use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Second moments E[x·xᵀ] of the input patches of convolutions, by layer name.

    Each is float64 [C·kh·kw, C·kh·kw] in the order [C, kh, kw], the padding's zeros included; or by
    channel [C, C], averaged over the kernel's positions, where that would be too large. `sha256` is
    that of all they depend on: the model, the images and how they were measured. It is part of the keys
    of what is kept about networks that were decomposed with them.
    """

    moments: Mapping[str, NDArray[np.float64]]
    sha256: str

    def __post_init__(self) -> None:
        for name, moment in self.moments.items():
            if moment.ndim != 2 or moment.shape[0] != moment.shape[1]:
                raise TdcError(
                    f"the second moment of {name!r} has shape {moment.shape}",
                    expected="a square matrix",
                )
