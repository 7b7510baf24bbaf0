"""Pad the ranks of fused operators with zeros, for kernels that take whole vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from tdc_deploy.graph import functions as op
from tdc_deploy.graph.names import Names
from tdc_deploy.graph.network import Network, fused_nodes

# The axes of each weight that are r_in and r_out.
_R_IN_AXIS = {op.FIRST: 0, op.FIRST_BIAS: 0, op.CORE: 3}
_R_OUT_AXIS = {op.CORE: 2, op.CORE_BIAS: 0, op.LAST: 1}


def pad_ranks(network: Network, step: int) -> None:
    """Round r_in and r_out of every fused operator up to multiples of `step`, in place.

    A padded channel has zero weights and a zero bias: T1 and T2 are lrelu(0) = 0 there, and meet zero
    weights next. For finite inputs nothing changes but the order in which a sum may be taken.
    """
    names = Names(network.graph)
    for node in fused_nodes(network.graph):
        for axes in (_R_IN_AXIS, _R_OUT_AXIS):
            for position, axis in axes.items():
                _pad(node, position, axis, step, names)


def _pad(node: gs.Node, position: int, axis: int, step: int, names: Names) -> None:
    stored = node.inputs[position]
    values: NDArray[Any] = np.asarray(stored.values)
    missing = -values.shape[axis] % step
    if missing:
        widths = [(0, missing if i == axis else 0) for i in range(values.ndim)]
        # A new constant: another node may share the old one.
        node.inputs[position] = gs.Constant(
            names.fresh(f"{stored.name}/padded"), np.pad(values, widths)
        )
