"""Plan by times of engines: the same search, table and store as on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.backends.tensorrt.backend import TensorRtBackend
from tdc_deploy.backends.tensorrt.compatibility import least_device
from tdc_deploy.backends.tensorrt.machine import Machine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.compress import nodes_of
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.mixed_evaluate import MixedEvaluator
from tdc_deploy.plan_file import Plan
from tdc_deploy.planner import Goal, Watch, make_plan
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress
from tdc_deploy.quantising import Quantiser
from tdc_deploy.ranks.choices import Choices
from tdc_deploy.ranks.gpu_choices import GpuChoices
from tdc_deploy.ranks.mixed_choices import MixedChoices
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source
from tdc_deploy.types import Precision


class EnginePlanner:
    """Plans for one source on one machine; called once for each goal.

    Times are those of engines, at the source's input shapes. Errors are computed on ONNX Runtime: what a
    low rank loses does not depend on where it runs, a session is made in a moment, and the engines that
    come of the plan are verified anyway. `evaluator` measures whole networks. With a `quantiser`, layers
    may be in INT8. The source's nodes `exact` stay float32 in fp16 networks, and what they are decomposed
    to.
    """

    def __init__(
        self,
        source: Source,
        samples: Samples,
        machine: Machine,
        options: EngineOptions,
        store: Store,
        threads: int,
        progress: Progress,
        watch: Watch | None = None,
        quantiser: Quantiser | None = None,
        exact: Collection[str] = (),
    ) -> None:
        options = replace(options, int8=False)
        held = frozenset(name for node in exact for name in nodes_of(node))
        backend = TensorRtBackend(machine, options, source.inputs, progress, exact=held)
        accuracy = OnnxRuntimeBackend(threads)
        job = (source, samples, backend, store, accuracy)
        if quantiser is None:
            self.evaluator = Evaluator(*job)
        else:
            self.evaluator = MixedEvaluator(*job, quantiser, held)
        self._quantiser = quantiser
        self._device = least_device(machine.device, options.hardware_compatibility)
        self._precision = options.precision
        self._embedding = machine.embedding
        self._store = store
        self._progress = progress
        self._watch = watch

    def __call__(self, goal: Goal) -> Plan:
        """The plan for a goal.

        Raises:
            TdcError: the model has nothing to decompose, or TensorRT refuses it.
        """
        choices = self.choices(paper_grid=goal.solver == "tdc")
        job = (self.evaluator, self._store, goal, self._progress, choices, self._watch)
        plan = make_plan(*job)
        return in_precision(plan, "fp16") if self._precision == "fp16" else plan

    def choices(self, paper_grid: bool = False) -> Choices:
        """What this machine offers for a layer; the paper's grid, or every form."""
        fused_us = None if self._embedding is None else self._embedding.predicted_us
        choices = GpuChoices(self._device, self._precision, paper_grid, fused_us)
        if self._quantiser is None:
            return choices
        return MixedChoices(choices, self._quantiser.layer, self._quantiser.revision)


def in_precision(plan: Plan, precision: Precision) -> Plan:
    """The plan with every layer that is not in INT8 in this precision."""
    layers = {
        name: replace(choice, candidate=replace(choice.candidate, precision=precision))
        if choice.candidate.precision != "int8"
        else choice
        for name, choice in plan.layers.items()
    }
    return replace(plan, layers=layers)


def planning_cache(options: EngineOptions, machine: Machine) -> Path:
    """The timing cache that hundreds of builds share: as given, else one in the user's cache."""
    return options.timing_cache or machine.timing_cache()
