"""Second moments of input patches, by the definition: every patch written out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.graph.network import Network, model_of
from tdc_deploy.graph.prefix import prefix_of
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source
from tdc_deploy.statistics import LayerStatistics
from tdc_deploy.types import ConvLayer

Array = NDArray[np.float64]


def patches(x: NDArray[np.floating], layer: ConvLayer) -> Array:
    """Input [n, C, H, W] as rows [n·outputs, C·kh·kw], zeros of the padding included."""
    top, left, bottom, right = layer.pads
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    (kh, kw), (dh, dw), (sh, sw) = layer.kernel, layer.dilations, layer.strides
    span = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, span, (2, 3))
    windows = windows[:, :, ::sh, ::sw, ::dh, ::dw]
    return np.asarray(windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, layer.c_in * kh * kw))


def layer_inputs(
    network: Network, names: Iterable[str], samples: Samples
) -> dict[str, NDArray[np.float32]]:
    """What the convolutions of these names take, over all samples."""
    wanted = set(names)
    nodes = [node for node in network.graph.nodes if node.name in wanted]
    prefix = prefix_of(network, nodes, inputs=True)
    with OnnxRuntimeBackend(1).runner(model_of(prefix)) as runner:
        runs = [(runner.infer(feeds, check_inputs=False), n) for feeds, n in samples.batches()]
    found = {}
    for node in nodes:
        tensor = node.inputs[0].name
        found[node.name] = np.concatenate([values[tensor][:n] for values, n in runs])
    return found


def measured(source: Source, samples: Samples, sha256: str = "moments") -> LayerStatistics:
    """The second moments of every layer that may be decomposed."""
    inputs = layer_inputs(source.network, source.plannable, samples)
    moments = {}
    for name, layer in source.plannable.items():
        rows = patches(inputs[name], layer)
        moments[name] = rows.T @ rows / len(rows)
    return LayerStatistics(moments, sha256)
