"""Build a network in INT8, dense and with planned ranks, so that it keeps the limits of a build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx

from tdc_calibration.calibrators import Calibrator
from tdc_calibration.fallback import fall_back
from tdc_calibration.int8 import Scheme, schemes_of_machine
from tdc_calibration.int8_choices import Int8Choices
from tdc_calibration.int8_evaluate import Int8Evaluator, int8_backend
from tdc_calibration.int8_network import Int8Network
from tdc_calibration.readback import operators_run, weighted_counts
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.builder import (
    PLANNING_ATTEMPTS,
    Built,
    beyond,
    tighter,
)
from tdc_deploy.compress import Selection, decompose_layers
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.graph.network import Network
from tdc_deploy.plan_file import Plan
from tdc_deploy.planner import Goal, make_plan
from tdc_deploy.profiling.layers import LayerProfiler
from tdc_deploy.profiling.measure import FINAL
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress
from tdc_deploy.samples import Samples
from tdc_deploy.search import Search
from tdc_deploy.source import Source
from tdc_deploy.tucker import dense_cost
from tdc_deploy.types import Candidate, Precision

# A tensor's range moves little with more.
MAX_SAMPLES = 256

# With fewer, the ranges are a guess.
FEW_SAMPLES = 32

DENSE_INT8 = Candidate("dense", precision="int8")


@dataclass(frozen=True, eq=False)
class Int8Build:
    """Builds the INT8 forms of the network that `evaluator` measures in float32.

    `calibration` are the samples that calibrate; `calibrator` None is the best one.
    """

    evaluator: Evaluator
    calibration: Samples
    backend: OnnxRuntimeBackend
    store: Store
    goal: Goal
    calibrator: Calibrator | None
    progress: Progress

    def __call__(self, own: Built, plan: Plan | None, as_it_came: bool) -> list[Built]:
        """Dense INT8, and INT8 with the ranks of a given plan or of one that is made for INT8; with
        `as_it_came`, the first alone. Of `own`, the float32 form, nothing is taken.
        """
        del own
        source = self.evaluator.source
        scheme = fastest_scheme(source, self.backend, self.store)
        dense, kept = self._built(None, source.network, scheme)
        if as_it_came or kept is None:
            return [dense]
        if plan is not None:
            return [dense, self._planned(plan, scheme)[0]] if plan.selection else [dense]
        if not source.plannable:
            return [dense]
        tucker = self._plan_and_build(scheme, dense, kept)
        return [dense, tucker] if tucker.compressed else [dense]

    def _plan_and_build(self, scheme: Scheme, dense: Built, kept: Sequence[str]) -> Built:
        """Plan by times of INT8 networks, and build; again with a tighter limit where that misses it."""
        evaluator = Int8Evaluator(
            *(self.evaluator, self.backend, self.store, scheme),
            *(dense.details["calibrator"], self.calibration, kept),
        )
        choices = Int8Choices(scheme, paper_grid=self.goal.solver == "tdc")
        # Both from one comparison, side by side: times of different hours do not make a ratio.
        share = dense.ratio.value
        budget = self.goal.latency_budget
        of_dense = None if budget is None else min(1.0, budget / share)
        aimed = replace(self.goal, latency_budget=of_dense)
        searches: list[Search] = []
        for _ in range(PLANNING_ATTEMPTS):
            found = make_plan(evaluator, self.store, aimed, self.progress, choices, searches.append)
            built, _ = self._planned(found, scheme, kept)
            if built.within_limit or not built.compressed:
                break
            error = tighter(built.comparison, self.goal, aimed.max_error)
            aimed = replace(aimed, max_error=error)
        for search in searches:
            search.share = share
        plan = _against_source(built.plan, evaluator.dense_ms / share)
        return replace(built, plan=plan, searches=tuple(searches))

    def _planned(
        self, plan: Plan, scheme: Scheme, keep: Sequence[str] = ()
    ) -> tuple[Built, list[str] | None]:
        network = self._network(plan.selection)
        plan = replace(plan, sequential=bool(self.evaluator.in_sequence(plan.selection)))
        return self._built(plan, network, scheme, keep)

    def _network(self, selection: Selection) -> Network:
        evaluator = self.evaluator
        given = evaluator.in_sequence(selection)
        return decompose_layers(evaluator.source, selection, evaluator.repair, True, given)

    def _built(
        self, plan: Plan | None, network: Network, scheme: Scheme, keep: Sequence[str] = ()
    ) -> tuple[Built, list[str] | None]:
        """The network in INT8, with as many layers in float32 as the limits want (None: all would not be
        enough), `keep` among them.
        """
        goal, progress = self.goal, self.progress
        progress("calibrating", 0, 1)
        quantised = Int8Network(
            network.copy(), self.calibration.spread(MAX_SAMPLES), self.backend, scheme
        )
        calibrator = self.calibrator or quantised.best_calibrator()
        progress("calibrating", 1, 1)
        always = [layer for layer in quantised.layers if layer in keep]
        free = [layer for layer in quantised.layers if layer not in always]

        def holds(layers: Sequence[str]) -> bool:
            comparison = self.evaluator.verify(quantised.model(calibrator, [*always, *layers]))
            return not beyond(comparison, goal.max_error, goal.max_accuracy_drop)

        kept = fall_back(
            free, lambda name: quantised.error_alone(calibrator, name), holds, progress
        )
        exact = [*always, *(kept or [])]
        model = quantised.model(calibrator, exact)
        return self._measured(plan, model, quantised, calibrator, exact), kept

    def _measured(
        self,
        plan: Plan | None,
        model: onnx.ModelProto,
        quantised: Int8Network,
        calibrator: Calibrator,
        exact: Sequence[str],
    ) -> Built:
        comparison, ratio = self.evaluator.compare(model, FINAL)
        counts = weighted_counts(operators_run(model))
        details = {
            "scheme": str(quantised.scheme),
            "calibrator": calibrator,
            "calibration_samples": min(len(self.calibration), MAX_SAMPLES),
            "float_layers": list(exact),
            "operators": counts,
        }
        return Built(
            None if plan is None else as_built(plan, exact),
            model,
            comparison,
            ratio,
            self.goal.max_error,
            bool(self.evaluator.source.compressed),
            self.goal.max_accuracy_drop,
            "int8",
            details,
            tuple(_warnings(len(self.calibration), counts, quantised, exact)),
            fell_back=set(quantised.layers) <= set(exact),
        )


def fastest_scheme(source: Source, backend: OnnxRuntimeBackend, store: Store) -> Scheme:
    """The types that the layer with most arithmetic runs fastest in here."""
    schemes = schemes_of_machine()
    layers = [conv.layer for conv in source.convs.values() if conv.layer is not None]
    layers = [layer for layer in layers if layer.groups == 1]
    if not layers:
        return schemes[0]
    largest = max(layers, key=lambda layer: dense_cost(layer).macs)
    times = {}
    for scheme in schemes:
        choices = Int8Choices(scheme)
        on = int8_backend(backend, scheme)
        profiler = LayerProfiler(on, store, choices.model, choices.revisions)
        times[scheme] = profiler.latency(largest, DENSE_INT8)
    return min(schemes, key=lambda scheme: times[scheme])


def as_built(plan: Plan, exact: Sequence[str]) -> Plan:
    """The plan with each layer's precision as it was built."""
    layers = {}
    for name, choice in plan.layers.items():
        precision: Precision = "fp32" if name in exact else "int8"
        # Fused chains stay out of Q/DQ networks.
        candidate = replace(choice.candidate, precision=precision, implementation="native")
        layers[name] = replace(choice, candidate=candidate)
    return replace(plan, layers=layers)


def _against_source(plan: Plan | None, source_ms: float) -> Plan | None:
    """The plan with its figures beside the source's time; what it missed is measured on what is built."""
    if plan is None:
        return None
    figures = None if plan.network is None else replace(plan.network, dense_ms=source_ms)
    notes = tuple(text for text in plan.warnings if text not in plan.missed)
    return replace(plan, network=figures, warnings=notes, missed=())


def _warnings(
    samples: int, counts: dict[str, int], quantised: Int8Network, exact: Sequence[str]
) -> list[str]:
    warnings = []
    if samples < FEW_SAMPLES:
        warnings.append(
            f"INT8 was calibrated on {samples} samples; give {FEW_SAMPLES} or more for ranges to rely on"
        )
    nodes = sum(len(parts) for name, parts in quantised.layers.items() if name not in exact)
    if counts["int8"] != nodes:
        warnings.append(
            f"{nodes} nodes with weights are quantised, but ONNX Runtime runs {counts['int8']} in 8 bits"
        )
    return warnings
