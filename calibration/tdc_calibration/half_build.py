"""Build a network in float16, so that it keeps the limits of a build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tdc_calibration.fallback import fall_back
from tdc_calibration.half_network import HalfNetwork
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.builder import Built, beyond
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.graph.network import network_of
from tdc_deploy.plan_file import Plan
from tdc_deploy.planner import Goal
from tdc_deploy.profiling.measure import FINAL
from tdc_deploy.progress import Progress
from tdc_deploy.samples import Samples

# Ranges need few; each layer alone is run on all of these.
SAMPLES = 32

# A layer that alone moves the output by more than this share stays float32, whatever the limits.
MOST_ERROR = 0.01


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
        errors = self._errors(half)
        costly = [layer for layer in half.layers if not errors[layer] <= MOST_ERROR]

        def holds(layers: Sequence[str]) -> bool:
            comparison = self.evaluator.verify(half.model([*costly, *layers]))
            return not beyond(comparison, own.limit, self.goal.max_accuracy_drop)

        free = [layer for layer in half.layers if layer not in costly]
        kept = fall_back(free, errors.__getitem__, holds, self.progress) or []
        model = half.model([*costly, *kept])
        comparison, ratio = self.evaluator.compare(model, FINAL)
        exact = [*half.overflowing, *costly, *kept]
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
            )
        ]

    def _errors(self, half: HalfNetwork) -> dict[str, float]:
        errors = {}
        for done, layer in enumerate(half.layers):
            self.progress("measuring what float16 costs each layer", done, len(half.layers))
            errors[layer] = half.error_alone(layer)
        return errors


def _as_built(plan: Plan, exact: Sequence[str]) -> Plan:
    """The plan with each layer's precision as it was built: a fused chain is one node, named after it."""
    layers = {}
    for name, choice in plan.layers.items():
        kept = {name, f"{name}/first", f"{name}/core", f"{name}/last"} & set(exact)
        candidate = replace(choice.candidate, precision="fp32" if kept else "fp16")
        layers[name] = replace(choice, candidate=candidate)
    return replace(plan, layers=layers)
