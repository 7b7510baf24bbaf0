"""Build a network in float16, so that it keeps the limits of a build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tdc_calibration.half_choice import SAMPLES, exact_nodes
from tdc_calibration.half_network import HalfNetwork
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.builder import Built, beyond
from tdc_deploy.compress import nodes_of
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.graph.network import network_of
from tdc_deploy.plan_file import Plan
from tdc_deploy.planner import Goal
from tdc_deploy.profiling.measure import FINAL
from tdc_deploy.progress import Progress
from tdc_deploy.samples import Samples


@dataclass(frozen=True, eq=False)
class HalfBuild:
    """Builds the float16 form of what was built in float32, by what `calibration` makes of it."""

    evaluator: Evaluator
    calibration: Samples
    backend: OnnxRuntimeBackend
    goal: Goal
    progress: Progress

    def __call__(self, own: Built, plan: Plan | None, as_it_came: bool) -> list[Built]:
        """The form `own` in float16. Its ranks stay: on a CPU, float16 is stored and not computed in."""
        del plan, as_it_came
        samples = self.calibration.spread(SAMPLES)
        half = HalfNetwork(network_of(own.model), samples, self.backend)

        def holds(layers: Sequence[str]) -> bool:
            comparison = self.evaluator.verify(half.model(layers))
            return not beyond(comparison, own.limit, self.goal.max_accuracy_drop)

        exact = exact_nodes(half, holds, self.progress)
        model = half.model(exact)
        comparison, ratio = self.evaluator.compare(model, FINAL)
        details = {"float_layers": exact, "calibration_samples": len(samples)}
        return [
            replace(
                own,
                plan=None if own.plan is None else _as_built(own.plan, exact),
                model=model,
                comparison=comparison,
                ratio=ratio,
                precision="fp16",
                details=details,
                fell_back=set(half.layers) <= set(exact),
            )
        ]


def _as_built(plan: Plan, exact: Sequence[str]) -> Plan:
    """The plan with each layer's precision as it was built: a fused chain is one node, named after it."""
    layers = {}
    for name, choice in plan.layers.items():
        kept = nodes_of(name) & set(exact)
        candidate = replace(choice.candidate, precision="fp32" if kept else "fp16")
        layers[name] = replace(choice, candidate=candidate)
    return replace(plan, layers=layers)
