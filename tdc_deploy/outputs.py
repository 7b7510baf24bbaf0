"""What a model gives for many samples, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.progress import Progress, silent
from tdc_deploy.samples import Samples

Outputs = dict[str, NDArray[Any]]
Feeds = Mapping[str, NDArray[Any]]


def run_samples(
    run: Callable[[Feeds], Mapping[str, Any]], samples: Samples, progress: Progress = silent
) -> Outputs:
    """Every output over all samples, [N, ...]; `run` takes a batch of inputs by name.

    Raises:
        TdcError: an output's size differs from batch to batch.
    """
    parts: dict[str, list[NDArray[Any]]] = {}
    for number, (feeds, count) in enumerate(samples.batches()):
        progress("running", number * samples.batch, len(samples))
        for name, value in run(feeds).items():
            array = np.asarray(value)
            # Outputs without a batch dimension (a global score) count as one row a batch.
            rows = array[:count] if array.shape[:1] == (samples.batch,) else array[None]
            parts.setdefault(name, []).append(np.array(rows))
    return {name: _joined(name, arrays) for name, arrays in parts.items()}


def scores_name(outputs: Mapping[str, NDArray[Any]], samples: Samples) -> str | None:
    """The first output that looks like class scores [N, classes], if any."""
    for name, value in outputs.items():
        is_matrix = value.dtype.kind == "f" and value.ndim == 2
        if is_matrix and value.shape[1] > 1 and len(value) == len(samples):
            return name
    return None


def share_equal(a: NDArray[Any] | None, b: NDArray[Any] | None) -> float | None:
    """The share of equal elements; None where one is missing."""
    return None if a is None or b is None else float((a == b).mean())


def _joined(name: str, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    if len({array.shape[1:] for array in arrays}) > 1:
        raise TdcError(
            f"the size of output {name!r} depends on the input's values",
            expected="outputs of one size",
            fix="take the network without what follows it (non-maximum suppression, say)",
        )
    return np.concatenate(arrays)
