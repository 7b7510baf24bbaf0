"""Store equal weights once: convolutions that shared a kernel share its factors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

# Smaller ones are not worth looking at.
LEAST_ELEMENTS = 256


def share_constants(graph: gs.Graph) -> None:
    """Make every reader of stored tensors that are equal bit by bit read the first of them, in place."""
    kept: dict[tuple[object, ...], list[gs.Constant]] = {}
    outputs = {id(tensor) for tensor in graph.outputs}
    for tensor in list(graph.tensors().values()):
        if not isinstance(tensor, gs.Constant) or id(tensor) in outputs:
            continue
        if math.prod(tensor.shape) < LEAST_ELEMENTS:
            continue
        values = np.asarray(tensor.values)
        alike = kept.setdefault((values.dtype, values.shape, _sample(values)), [])
        first = next((other for other in alike if _same(other.values, values)), None)
        if first is None:
            alike.append(tensor)
            continue
        for node in list(tensor.outputs):
            node.inputs = [first if value is tensor else value for value in node.inputs]


def _sample(values: NDArray[Any]) -> bytes:
    return values.reshape(-1)[:LEAST_ELEMENTS].tobytes()


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    # As bytes: NaN equals itself, and 0 is not -0.
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
