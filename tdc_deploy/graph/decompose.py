"""Replace a convolution by the chain that its factors make."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from tdc_deploy.graph.convs import bias
from tdc_deploy.graph.names import Names
from tdc_deploy.tucker import Factors

_POINTWISE = {
    "strides": [1, 1],
    "pads": [0, 0, 0, 0],
    "dilations": [1, 1],
    "group": 1,
    "kernel_shape": [1, 1],
}


def decompose_conv(graph: gs.Graph, node: gs.Node, factors: Factors) -> list[gs.Node]:
    """Put the chain of `factors` in the place of the Conv `node`; return its nodes in order.

    The last one writes the tensor that the Conv wrote, and has its bias. Where there is no core (svd),
    the first takes the Conv's stride and padding. The factors are stored in the Conv's type.
    """
    geometry, dtype = dict(node.attrs), node.inputs[1].dtype
    original_bias, output = bias(node), node.outputs[0]
    kernels = {
        "first": None if factors.first is None else factors.first[:, :, None, None],
        "core": factors.core,
        "last": None if factors.last is None else factors.last[:, :, None, None],
    }
    parts = [(role, values) for role, values in kernels.items() if values is not None]
    strided = "core" if factors.core is not None else "first"
    position = graph.nodes.index(node)
    value = node.inputs[0]
    node.inputs.clear()
    node.outputs.clear()
    names = Names(graph)
    made = []
    for role, values in parts:
        name = f"{node.name}/{role}"
        inputs = [
            value,
            gs.Constant(names.fresh(f"{name}.weight"), np.ascontiguousarray(values, dtype)),
        ]
        is_last = role == parts[-1][0]
        if is_last and original_bias is not None:
            inputs.append(gs.Constant(names.fresh(f"{name}.bias"), original_bias))
        value = output if is_last else gs.Variable(names.fresh(f"{name}.output"), output.dtype)
        attrs = geometry if role == strided else _POINTWISE
        made.append(gs.Node("Conv", name, dict(attrs), inputs, [value]))
    graph.nodes[position : position + 1] = made
    return made
