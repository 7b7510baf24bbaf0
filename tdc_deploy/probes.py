"""What each layer's loss alone does to the network's output, from one walk through the dense network.

In front of the layer nothing differs from the dense network, so nothing is run there again: a probe takes
the layer in its form and what comes behind it, on a few samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import onnx_graphsurgeon as gs

from tdc_deploy.backends.base import Backend
from tdc_deploy.graph.decompose import decompose_conv
from tdc_deploy.graph.network import Network, model_of
from tdc_deploy.outputs import run_samples
from tdc_deploy.repair import Moments, apply_correction, correction_of, sample_rows
from tdc_deploy.samples import MIN_SAMPLES, Samples
from tdc_deploy.source import Source
from tdc_deploy.types import Candidate
from tdc_deploy.verify import Outputs, compare_outputs, vary
from tdc_deploy.walk import Values, Walk

# Penalties add up to the network's error only roughly: more samples would sharpen what is blurred anyway.
PROBE_SAMPLES = MIN_SAMPLES


class Probes:
    """Errors of networks in which one layer is compressed; in graph order, or it is walked again.

    `repaired` are the samples that correct the layer's statistics, `verified` those that the error is
    measured on; PROBE_SAMPLES of each are used.
    """

    def __init__(
        self, source: Source, repaired: Samples, verified: Samples, backend: Backend
    ) -> None:
        self._source = source
        self._backend = backend
        self._repaired = [repaired.spread(PROBE_SAMPLES)] if repaired.real else []
        self._verified = verified.spread(PROBE_SAMPLES)
        self._nodes = {node.name: node for node in source.network.graph.nodes}
        self._walk = self._begun()
        self._last: tuple[gs.Node | None, list[Values] | None] = None, None

    def error(self, name: str, candidate: Candidate) -> float | None:
        """The relative output error with that layer as `candidate`.

        None where what lies around the layer is too large to be kept, or so few samples have one output.
        """
        node = self._nodes[name]
        seen = self._seen_at(node)
        if seen is None or not vary(self._dense):
            return None
        output = node.outputs[0].name
        first = sum(len(list(part.batches())) for part in self._repaired)
        changed = self._compressed(node, candidate, seen[:first], seen[first:])
        kept = self._walk.kept[first:]
        after = [{**old, output: new[output]} for old, new in zip(kept, changed, strict=True)]
        return compare_outputs(self._dense, self._outputs(after), self._verified).error

    def _seen_at(self, node: gs.Node) -> list[Values] | None:
        """What the layer takes and puts out, the walk gone on to it; None where it could not be."""
        last, seen = self._last
        if last is node:
            return seen
        del last, seen
        self._last = None, None
        if self._walk.is_behind(node):
            self._walk = self._begun()
        found: list[Values] = []
        reached = self._walk.to(node, lambda _, values: found.append(values), or_stop=True)
        self._last = node, (found if reached else None)
        return self._last[1]

    def _begun(self) -> Walk:
        batches = [
            feeds for part in [*self._repaired, self._verified] for feeds, _ in part.batches()
        ]
        return Walk(self._source.network, batches, self._backend)

    @cached_property
    def _dense(self) -> Outputs:
        """The dense network's outputs, from where the walk is now."""
        return self._outputs(self._walk.kept[-len(list(self._verified.batches())) :])

    def _outputs(self, batches: Sequence[Values]) -> Outputs:
        run = self._walk.outputs(batches)
        return run_samples(lambda _: next(run), self._verified)

    def _compressed(
        self, node: gs.Node, candidate: Candidate, repairing: list[Values], verifying: list[Values]
    ) -> list[Values]:
        """What the layer puts out as `candidate`, corrected as `Repair` does, for the verifying batches."""
        network = self._layer(node, (repairing or verifying)[0])
        factors = self._source.decompositions.factors(node.name, candidate)
        last = decompose_conv(network.graph, network.graph.nodes[0], factors)[-1]
        if repairing:
            output = node.outputs[0].name
            counts = [count for part in self._repaired for _, count in part.batches()]
            dense, now = Moments(), Moments()
            chained = self._run(network, repairing)
            for count, before, after in zip(counts, repairing, chained, strict=True):
                for moments, values in ((dense, before), (now, after)):
                    moments.add(sample_rows(values[output], count, self._verified.batch))
            correction = correction_of(dense.statistics(), now.statistics())
            apply_correction(network, last, correction)
        return self._run(network, verifying)

    def _layer(self, node: gs.Node, values: Values) -> Network:
        """A network of that convolution alone."""
        whole = self._source.network
        x, y = (
            gs.Variable(t.name, values[t.name].dtype) for t in (node.inputs[0], node.outputs[0])
        )
        x.shape = values[x.name].shape
        constants = [gs.Constant(t.name, t.values) for t in node.inputs[1:] if not t.is_empty()]
        conv = gs.Node("Conv", node.name, dict(node.attrs), [x, *constants], [y])
        domains = whole.graph.import_domains
        graph = gs.Graph([conv], [x], [y], opset=whole.opset, import_domains=domains)
        return Network(graph, whole.ir_version)

    def _run(self, network: Network, batches: list[Values]) -> list[Values]:
        name = network.graph.inputs[0].name
        with self._backend.runner(model_of(network)) as runner:
            return [
                dict(runner.infer({name: values[name]}, check_inputs=False)) for values in batches
            ]
