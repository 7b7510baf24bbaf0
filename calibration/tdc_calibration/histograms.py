"""Histograms of a network's activations over data, in two passes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from tdc_deploy.backends.base import Backend
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import Network, model_of
from tdc_deploy.graph.shapes import infer_shapes, infer_types
from tdc_deploy.samples import Samples

# Folded to magnitudes, a histogram of both signs still has the 2048 bins of TensorRT's calibrator.
BINS = 4096

# Of a range: outside of these, a bin's number is no quotient of float32 numbers.
LARGEST = float(np.finfo(np.float32).max)
LEAST_WIDTH = 2 * BINS / LARGEST

# What the activations that one run puts out may take.
GROUP_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often a tensor's values fall into each of BINS equal bins over [low, high], which holds 0."""

    low: float
    high: float
    counts: NDArray[np.int64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """The bins' middles [BINS]."""
        width = (self.high - self.low) / len(self.counts)
        return np.asarray(self.low + width * (np.arange(len(self.counts)) + 0.5), np.float64)


def activation_names(network: Network) -> list[str]:
    """The float32 inputs of the graph and outputs of its nodes."""
    types = infer_types(network)
    graph = network.graph
    made = [tensor for node in graph.nodes for tensor in node.outputs if not tensor.is_empty()]
    return [t.name for t in (*graph.inputs, *made) if types.get(t.name) == np.float32]


def collect(
    network: Network, names: Sequence[str], samples: Samples, backend: Backend
) -> dict[str, Histogram]:
    """The histogram of each named activation over all samples.

    One pass finds the ranges and one counts; of large networks, each over groups of tensors whose
    values fit in GROUP_BYTES.

    Raises:
        TdcError: an activation is NaN or infinite.
    """
    found: dict[str, Histogram] = {}
    for group in _groups(network, names, samples):
        ranges = _ranges(network, group, samples, backend)
        counts = {name: np.zeros(BINS, np.int64) for name in group}
        for values in _runs(network, group, samples, backend):
            for name, value in values.items():
                counts[name] += _counts(value, *ranges[name])
        found |= {name: Histogram(*ranges[name], counts[name]) for name in group}
    return found


def extremes(
    network: Network, names: Sequence[str], samples: Samples, backend: Backend
) -> dict[str, tuple[float, float]]:
    """The least and the largest value of each named activation over all samples, and of 0: in one pass.

    Raises:
        TdcError: an activation is NaN or infinite.
    """
    found: dict[str, tuple[float, float]] = {}
    for group in _groups(network, names, samples):
        found |= _ranges(network, group, samples, backend)
    return found


def _ranges(
    network: Network, names: Sequence[str], samples: Samples, backend: Backend
) -> dict[str, tuple[float, float]]:
    ranges = dict.fromkeys(names, (0.0, 0.0))
    for values in _runs(network, names, samples, backend):
        for name, value in values.items():
            if not value.size:  # where a detector finds nothing
                continue
            least, most = _finite(name, value.min()), _finite(name, value.max())
            ranges[name] = (min(ranges[name][0], least), max(ranges[name][1], most))
    return ranges


def _groups(network: Network, names: Sequence[str], samples: Samples) -> Iterator[list[str]]:
    shapes = infer_shapes(network, {name: a.shape for name, a in samples.first_batch().items()})
    group: list[str] = []
    held = 0
    for name in names:
        size = 4 * math.prod(shapes.get(name, ()))
        if group and held + size > GROUP_BYTES:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def _runs(
    network: Network, names: Sequence[str], samples: Samples, backend: Backend
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The named activations of each batch, without the rows that only fill the last one."""
    inputs = [name for name in names if name in {t.name for t in network.graph.inputs}]
    watched = [name for name in names if name not in inputs]
    with backend.runner(model_of(_watching(network, watched))) as runner:
        for feeds, count in samples.batches():
            values = {name: np.asarray(feeds[name]) for name in inputs}
            found = runner.infer(feeds, check_inputs=False)
            values |= {name: np.asarray(found[name]) for name in watched}
            # Inside, the first dimension may hold more than the samples (crops, frames).
            whole = samples.batch
            yield {n: v[:count] if v.ndim and len(v) == whole else v for n, v in values.items()}


def _watching(network: Network, names: Sequence[str]) -> Network:
    """A copy that puts out these tensors too; its own outputs stay, so that nothing is cut off."""
    copied = network.copy()
    known = copied.graph.tensors()
    already = {tensor.name for tensor in copied.graph.outputs}
    for name in names:
        tensor: gs.Tensor = known[name]
        if name not in already:
            tensor.dtype = np.float32
            copied.graph.outputs.append(tensor)
    return copied


def _counts(value: NDArray[Any], low: float, high: float) -> NDArray[np.int64]:
    if not high > low:
        counts = np.zeros(BINS, np.int64)
        counts[0] = value.size
        return counts
    values = value.reshape(-1)
    if not LEAST_WIDTH < high - low < LARGEST:
        values = values.astype(np.float64)
    # As numpy.histogram does for equal bins, at a quarter of its time.
    where = ((values - low) * (BINS / (high - low))).astype(np.int32)
    return np.bincount(np.minimum(where, BINS - 1), minlength=BINS)


def _finite(name: str, value: Any) -> float:
    if np.isfinite(value):
        return float(value)
    raise TdcError(
        f"the activation {name!r} is {value} on the calibration data",
        expected="finite numbers everywhere in the network",
        fix="check the data's preprocessing, or the weights",
    )
