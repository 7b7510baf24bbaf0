"""Make a float32 network's inputs and outputs float16."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from tdc_deploy.graph.names import Names
from tdc_deploy.graph.network import Network


def to_half_io(network: Network) -> None:
    """Give every float32 input and output the type float16, in place; names stay.

    What is computed in between keeps its types, behind Casts. Those that `to_half` wrote at the inputs
    and outputs go: to float32 and back changes no float16 number.
    """
    graph = network.graph
    rewriting = _Rewriting(graph)
    graph.inputs = [rewriting.input(tensor) for tensor in graph.inputs]
    graph.outputs = [rewriting.output(tensor) for tensor in graph.outputs]
    graph.cleanup().toposort()


class _Rewriting:
    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self._names = Names(graph)
        self._halves: dict[int, gs.Variable] = {}  # by the identity of what they replace

    def input(self, tensor: gs.Tensor) -> gs.Tensor:
        if tensor.dtype != np.float32:
            return tensor
        half = self._half_in_place_of(tensor)
        for cast in [node for node in tensor.outputs if _casts_to(node, onnx.TensorProto.FLOAT16)]:
            self._replace(cast.outputs[0], half)
        self._cast(half, tensor, onnx.TensorProto.FLOAT)
        return half

    def output(self, tensor: gs.Tensor) -> gs.Tensor:
        if tensor.dtype != np.float32:
            return tensor
        if id(tensor) in self._halves:  # an input that is an output, or an output twice
            return self._halves[id(tensor)]
        half = self._half_in_place_of(tensor)
        source = _half_source(tensor)
        if source is None or source in self._halves.values():
            self._cast(tensor, half, onnx.TensorProto.FLOAT16)
        else:
            (producer,) = source.inputs
            producer.outputs = [half if made is source else made for made in producer.outputs]
            self._replace(source, half)
        return half

    def _half_in_place_of(self, tensor: gs.Tensor) -> gs.Variable:
        """A float16 tensor that takes the name; `tensor` gets another one."""
        half = gs.Variable(tensor.name, np.float16, tensor.shape)
        tensor.name = self._names.fresh(f"{tensor.name}/fp32")
        self._halves[id(tensor)] = half
        return half

    def _replace(self, old: gs.Tensor, new: gs.Tensor) -> None:
        for node in list(old.outputs):
            node.inputs = [new if tensor is old else tensor for tensor in node.inputs]

    def _cast(self, source: gs.Tensor, target: gs.Tensor, to: int) -> None:
        name = self._names.fresh(f"{target.name}/cast")
        node = gs.Node("Cast", name, {"to": to}, inputs=[source], outputs=[target])
        self._graph.nodes.append(node)


def _half_source(tensor: gs.Tensor) -> gs.Tensor | None:
    """The float16 tensor that `tensor` is a Cast of, if a node makes it."""
    (producer,) = tensor.inputs[:1] or (None,)
    if producer is None or not _casts_to(producer, onnx.TensorProto.FLOAT):
        return None
    source = producer.inputs[0]
    return source if source.inputs and source.dtype == np.float16 else None


def _casts_to(node: gs.Node, dtype: int) -> bool:
    return node.op == "Cast" and not node.domain and node.attrs["to"] == dtype
