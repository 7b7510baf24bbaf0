"""Calibrate networks for INT8 engines, on ONNX Runtime, which computes what their Q/DQ form says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tdc_calibration.calibrators import CALIBRATORS, Calibrator, Range, ranges_of
from tdc_calibration.fallback import fall_back
from tdc_calibration.histograms import activation_names, collect
from tdc_calibration.int8_engine import quantise_for_tensorrt
from tdc_calibration.int8_network import PARTS, layer_of
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.builder import beyond
from tdc_deploy.graph.names import name_nodes
from tdc_deploy.graph.network import Network, model_of
from tdc_deploy.planner import Goal
from tdc_deploy.progress import Progress
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source
from tdc_deploy.verify import Comparison, Outputs, compare_outputs, run_all

MAX_SAMPLES = 256


@dataclass(frozen=True, eq=False)
class EngineQuantiser:
    """Makes the Q/DQ form of a source's networks, with layers in float32 as the goal's limits want.

    `calibrator` None is the one with the least error on the samples that verify.
    """

    source: Source
    samples: Samples
    goal: Goal
    calibrator: Calibrator | None
    progress: Progress

    def __call__(self, network: Network) -> tuple[Network, list[str]]:
        """The network with Q/DQ, and what there is to say of it.

        Raises:
            TdcError: it cannot be quantised.
        """
        named = network.copy()
        name_nodes(named.graph)
        ranges = self._ranges(named)
        layers = list(dict.fromkeys(layer_of(n.name) for n in named.graph.nodes if n.op == "Conv"))

        def quantised(calibrator: Calibrator, keep: Sequence[str]) -> Network:
            nodes = [layer + part for layer in keep for part in ("", *PARTS)]
            return quantise_for_tensorrt(named, ranges[calibrator], nodes)

        errors = {c: self._compare(quantised(c, [])).error for c in ranges}
        best = min(ranges, key=lambda c: errors[c])

        def holds(keep: Sequence[str]) -> bool:
            goal, comparison = self.goal, self._compare(quantised(best, keep))
            return not beyond(comparison, goal.max_error, goal.max_accuracy_drop)

        def error_alone(layer: str) -> float:
            return self._compare(quantised(best, [one for one in layers if one != layer])).error

        kept = fall_back(layers, error_alone, holds, self.progress) or []
        notes = [f"int8 form: {', '.join(kept)} stay float32, for the limits"] if kept else []
        return quantised(best, kept), notes

    def _ranges(self, network: Network) -> dict[Calibrator, dict[str, Range]]:
        self.progress("calibrating", 0, 1)
        samples = self.samples.split()[0].spread(MAX_SAMPLES)
        found = collect(network, activation_names(network), samples, OnnxRuntimeBackend())
        wanted = CALIBRATORS if self.calibrator is None else (self.calibrator,)
        ranges = {calibrator: ranges_of(found, calibrator, symmetric=True) for calibrator in wanted}
        self.progress("calibrating", 1, 1)
        return ranges

    def _compare(self, network: Network) -> Comparison:
        samples = self.samples.split()[1]
        with OnnxRuntimeBackend().runner(model_of(network)) as runner:
            return compare_outputs(self._reference, run_all(runner, samples), samples)

    @cached_property
    def _reference(self) -> Outputs:
        with OnnxRuntimeBackend().runner(self.source.path) as runner:
            return run_all(runner, self.samples.split()[1])
