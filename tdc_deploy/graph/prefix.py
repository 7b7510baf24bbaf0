"""The part of a network that computes given tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx_graphsurgeon as gs

from tdc_deploy.graph.network import Network


def prefix_of(network: Network, convs: Iterable[gs.Node], *, inputs: bool = False) -> Network:
    """A copy that puts out what the convolutions `convs` put out, or with `inputs` what they take.

    A graph output must say its type, which is that of the convolution's kernel.
    """
    return prefix_to(
        network,
        {(node.inputs if inputs else node.outputs)[0].name: node.inputs[1].dtype for node in convs},
    )


def prefix_to(network: Network, types: Mapping[str, Any]) -> Network:
    """A copy that puts out the tensors named in `types`, which are of these types."""
    prefix = network.copy()
    known = prefix.graph.tensors()
    prefix.graph.outputs = [known[name] for name in types]
    for tensor in prefix.graph.outputs:
        tensor.dtype = types[tensor.name]
    prefix.graph.cleanup()
    # Not by graphsurgeon, which would take a Loop body's unused inputs too.
    outputs = {id(tensor) for tensor in prefix.graph.outputs}
    prefix.graph.inputs = [t for t in prefix.graph.inputs if t.outputs or id(t) in outputs]
    return prefix
