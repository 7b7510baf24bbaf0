"""Shapes that cannot be inferred (behind a Loop, say), seen by running the network once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from tdc_deploy.backends.onnxruntime import run_for
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import Network, model_of
from tdc_deploy.graph.prefix import prefix_of
from tdc_deploy.graph.shapes import Shape, Shapes

# Enough for one run of a large network; a Loop on zeros may never end.
PATIENCE_S = 20.0


def observed_inputs(network: Network, inputs: Mapping[str, Shape], shapes: Shapes) -> Shapes:
    """The input shapes of those convolutions that `shapes` lacks, from one run on zeros.

    None of them if the network does not run on zeros: such layers stay dense.
    """
    missing = [
        node
        for node in network.graph.nodes
        if node.op == "Conv"
        and isinstance(node.inputs[1], gs.Constant)
        and isinstance(node.inputs[0], gs.Variable)
        and node.inputs[0].name not in shapes
    ]
    if not missing:
        return {}
    prefix = prefix_of(network, missing, inputs=True)
    try:
        feeds = {
            tensor.name: np.zeros(inputs[tensor.name], tensor.dtype)
            for tensor in prefix.graph.inputs
        }
        outputs = run_for(model_of(prefix), feeds, PATIENCE_S)
    except (TdcError, MemoryError):
        return {}
    return {name: tuple(np.shape(value)) for name, value in outputs.items()}
