"""Whether a limit of lost accuracy can be held to, before any work is done."""

from __future__ import annotations

import numpy as np

from tdc_deploy.errors import TdcError
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source


def check_accuracy_limit(max_drop: float | None, samples: Samples, source: Source) -> None:
    """Raise TdcError if the accuracy has a limit, in percentage points that may be lost, and could not be
    measured.
    """
    if max_drop is None:
        return
    limit = f"a limit of {max_drop:.4g} points of accuracy"
    if samples.labels is None:
        raise TdcError(
            f"{limit}, and inputs without labels",
            expected="class numbers of the inputs, under `labels`",
            fix="add them to --inputs or --calib, or leave --max-accuracy-drop out",
        )
    outputs = source.network.graph.outputs
    shapes = [source.shapes.get(t.name) for t in outputs if np.dtype(t.dtype).kind == "f"]
    if None in shapes:
        return  # seen when it is verified
    classes = next((s[1] for s in shapes if s is not None and len(s) == 2 and s[1] > 1), None)
    if classes is None:
        raise TdcError(
            f"{limit}, and outputs of {', '.join(map(str, shapes)) or 'no floating-point type'}",
            expected="an output of class scores [N, classes]",
            fix="leave --max-accuracy-drop out",
        )
    low, high = samples.labels.min(), samples.labels.max()
    if low < 0 or high >= classes:
        raise TdcError(
            f"{limit}, and labels from {low} to {high}",
            expected=f"class numbers from 0 to {classes - 1}, as the model has classes",
        )
