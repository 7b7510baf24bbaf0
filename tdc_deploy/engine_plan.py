"""Plan by times of engines: the same search, table and store as on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.backends.tensorrt.backend import TensorRtBackend
from tdc_deploy.backends.tensorrt.compatibility import least_device
from tdc_deploy.backends.tensorrt.machine import Machine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.plan_file import Plan
from tdc_deploy.planner import Goal, Watch, make_plan
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress
from tdc_deploy.ranks.gpu_choices import GpuChoices
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source


class EnginePlanner:
    """Plans for one source on one machine; called once for each goal.

    Times are those of engines, at the source's input shapes. Errors are computed on ONNX Runtime: what a
    low rank loses does not depend on where it runs, a session is made in a moment, and the engines that
    come of the plan are verified anyway. `evaluator` measures whole networks.
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
    ) -> None:
        backend = TensorRtBackend(machine, options, source.inputs, progress)
        accuracy = OnnxRuntimeBackend(threads)
        self.evaluator = Evaluator(source, samples, backend, store, accuracy)
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
        return make_plan(self.evaluator, self._store, goal, self._progress, choices, self._watch)

    def choices(self, paper_grid: bool = False) -> GpuChoices:
        """What this machine offers for a layer; the paper's grid, or every form."""
        fused_us = None if self._embedding is None else self._embedding.predicted_us
        return GpuChoices(self._device, self._precision, paper_grid, fused_us)


def planning_cache(options: EngineOptions, machine: Machine) -> Path:
    """The timing cache that hundreds of builds share: as given, else one in the user's cache."""
    return options.timing_cache or machine.timing_cache()
