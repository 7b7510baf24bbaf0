"""Run a network piece by piece: what comes before a place is computed once, and kept for what follows."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner

from tdc_deploy.backends.base import Backend
from tdc_deploy.graph.network import Network, model_of

Values = dict[str, NDArray[Any]]

# Kept between two places at most, over all batches. Where more would be, it is computed again.
MAX_KEPT_BYTES = 1 << 29

# Weights from this size on are fed to a piece, as they lie in memory: in its model they would be copied by
# the export, its serialisation and the session, once more for each place.
FED_BYTES = 1 << 24
_FED = ("Conv", "Gemm", "MatMul")


class Walk:
    """A network's values from one place to the next, in graph order.

    `batches` are the feeds of its inputs. What is kept at a place is what takes one to the others of the
    `places`; without these, to any node and the network's outputs. Between two places a node's constants
    may be replaced, if it is the node of a place and `change` is told; nothing else.
    """

    def __init__(
        self,
        network: Network,
        batches: Iterable[Values],
        backend: Backend,
        places: Sequence[gs.Node] | None = None,
    ) -> None:
        self._network = network
        self._nodes = list(network.graph.nodes)
        self._positions = {id(node): i for i, node in enumerate(self._nodes)}
        self._last_use = _last_uses(self._nodes, network.graph.outputs, places)
        self._backend = backend
        self._place = 0
        self._rest: _Piece | None = None
        self._open = ExitStack()
        weakref.finalize(self, self._open.close)
        self.kept = list(batches)
        """Per batch, by name, the values at the last place that could be kept."""

    def to(
        self, node: gs.Node, see: Callable[[int, Values], None], *, or_stop: bool = False
    ) -> bool:
        """Go on to the place behind `node`, which the last place is not behind.

        `see(batch, values)` is shown what the node takes and puts out. Returns False where too much would
        have to be kept: the next pieces then begin where this one did. With `or_stop` the batches that
        are left are not run then.
        """
        self._rest = None
        self._open.close()
        stop = self._positions[id(node)] + 1
        shown = {t.name: t for t in (*node.inputs, *node.outputs) if _is_computed(t)}
        live = self._live(stop)
        kept: list[Values] = []
        size = 0
        with ExitStack() as stack:
            piece = self._piece(stop, list({**live, **shown}.values()), self.kept, stack)
            for number, values in enumerate(piece.run(self.kept)):
                see(number, {name: values[name] for name in shown})
                kept.append({name: values[name] for name in live})
                size += sum(value.nbytes for value in kept[-1].values())
                if size > MAX_KEPT_BYTES:
                    kept.clear()
                    if or_stop:
                        break
        if size > MAX_KEPT_BYTES:
            return False
        self.kept, self._place = kept, stop
        return True

    def is_behind(self, node: gs.Node) -> bool:
        """Whether the last place is behind this node, so that it cannot be gone to any more."""
        return self._positions[id(node)] < self._place

    def change(self, tensor: gs.Tensor, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """The node that writes `tensor` was given other constants: what is kept of it is changed so."""
        for values in self.kept:
            if tensor.name in values:
                values[tensor.name] = change(values[tensor.name])

    def outputs(self, batches: Sequence[Values]) -> Iterator[Values]:
        """The network's outputs from values at the last place that was kept, such as `kept`, and of such
        shapes: the session is kept until one goes on, or the walk is dropped.
        """
        if self._rest is None:
            outputs = list(self._network.graph.outputs)
            self._rest = self._piece(len(self._nodes), outputs, batches, self._open)
        return self._rest.run(batches)

    def _live(self, stop: int) -> dict[str, gs.Tensor]:
        """The computed tensors of before `stop` that something from there on uses."""
        before = [*self._network.graph.inputs]
        before += [t for node in self._nodes[:stop] for t in node.outputs]
        return {t.name: t for t in before if self._last_use.get(id(t), -1) >= stop}

    def _piece(
        self, stop: int, wanted: Sequence[gs.Tensor], batches: Sequence[Values], stack: ExitStack
    ) -> _Piece:
        """What computes the wanted tensors from what is kept of such batches, until the stack is closed."""
        names = [tensor.name for tensor in wanted]
        computed = [tensor for tensor in wanted if tensor.name not in batches[0]]
        nodes = _needed(self._nodes[self._place : stop], computed)
        if not nodes:
            return _Piece(names)
        model, weights = self._model(nodes, computed, batches)
        fed = [value.name for value in model.graph.input if value.name not in weights]
        made = self._backend.runner(model)
        del model  # it would be kept beside the session
        return _Piece(names, stack.enter_context(made), fed, weights)

    def _model(
        self, nodes: Sequence[gs.Node], outputs: Sequence[gs.Tensor], batches: Sequence[Values]
    ) -> tuple[onnx.ModelProto, Values]:
        """A model of the nodes, and the weights that are fed to it."""
        graph = self._network.graph
        piece = gs.Graph(
            nodes=nodes,
            outputs=list(outputs),
            opset=graph.opset,
            import_domains=graph.import_domains,
            functions=graph.functions,
        )
        weights = _large_weights(nodes)
        if weights:
            piece = piece.copy()
            tensors = piece.tensors()
            for name, values in weights.items():
                tensors[name].to_variable(values.dtype, values.shape).type = "tensor_type"
        model = model_of(Network(piece, self._network.ir_version))
        used = {tensor.name for node in nodes for tensor in _uses(node)}
        known = {name: [values[name] for values in batches] for name in used & batches[0].keys()}
        for name, found in sorted((known | {n: [w] for n, w in weights.items()}).items()):
            kind = onnx.helper.np_dtype_to_tensor_dtype(found[0].dtype)
            info = onnx.helper.make_tensor_value_info(name, kind, _common_shape(found))
            model.graph.input.append(info)
        for value in model.graph.output:
            value.ClearField(
                "type"
            )  # ONNX Runtime infers it; what is stored may be of another shape
        return model, weights


@dataclass(frozen=True)
class _Piece:
    """What computes some tensors, `wanted`, of batches: a session, or none for what they hold."""

    wanted: Sequence[str]
    runner: BaseRunner | None = None
    fed: Sequence[str] = ()
    weights: Values = field(default_factory=dict)

    def run(self, batches: Iterable[Values]) -> Iterator[Values]:
        """The tensors of each batch."""
        for values in batches:
            found = values
            if self.runner is not None:
                feeds = {name: values[name] for name in self.fed} | self.weights
                found = {**values, **self.runner.infer(feeds, check_inputs=False)}
            yield {name: found[name] for name in self.wanted}


def _large_weights(nodes: Sequence[gs.Node]) -> Values:
    """By name, the weights of these nodes that are fed."""
    constants = [
        node.inputs[1]
        for node in nodes
        if node.op in _FED and not node.domain and isinstance(node.inputs[1], gs.Constant)
    ]
    return {t.name: t.values for t in constants if t.values.nbytes >= FED_BYTES}


def _common_shape(arrays: Sequence[NDArray[Any]]) -> list[int | None]:
    """Their shape, sizes that differ (NonZero's depend on the values) left open."""
    sizes = zip(*(array.shape for array in arrays), strict=True)
    return [size[0] if len(set(size)) == 1 else None for size in sizes]


def _is_computed(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Variable) and not tensor.is_empty()


def _uses(node: gs.Node) -> list[gs.Tensor]:
    """The computed tensors that a node reads, also from within its subgraphs."""
    used = [tensor for tensor in node.inputs if _is_computed(tensor)]
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            used += [tensor for inner in value.nodes for tensor in _uses(inner)]
            used += [tensor for tensor in value.outputs if _is_computed(tensor)]
    return used


def _needed(nodes: Sequence[gs.Node], wanted: Iterable[gs.Tensor]) -> list[gs.Node]:
    """Those of the nodes that it takes to compute the tensors, in their order."""
    missing = {id(tensor) for tensor in wanted}
    needed = []
    for node in reversed(nodes):
        if any(id(tensor) in missing for tensor in node.outputs):
            needed.append(node)
            missing.update(id(tensor) for tensor in _uses(node))
    return needed[::-1]


def _last_uses(
    nodes: Sequence[gs.Node], outputs: Sequence[gs.Tensor], places: Sequence[gs.Node] | None
) -> dict[int, int]:
    """By a tensor's id, the position of the last node that reads it on the way to the places; without
    places of any node, and behind them all for the network's outputs.
    """
    on_the_way = list(nodes)
    if places is not None:
        on_the_way = _needed(nodes, [tensor for node in places for tensor in node.outputs])
    positions = {id(node): i for i, node in enumerate(nodes)}
    last: dict[int, int] = {}
    for node in on_the_way:
        last.update((id(tensor), positions[id(node)]) for tensor in _uses(node))
    if places is None:
        last.update((id(tensor), len(nodes)) for tensor in outputs)
    return last
