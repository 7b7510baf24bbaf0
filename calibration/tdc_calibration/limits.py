"""Whether networks of a source keep a goal's limits, on ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.builder import beyond
from tdc_deploy.planner import Goal
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source
from tdc_deploy.verify import Outputs, compare_outputs, run_all


@dataclass(frozen=True, eq=False)
class Limits:
    """The goal's limits of error and of the loss of accuracy, on the samples that verify."""

    source: Source
    samples: Samples
    goal: Goal
    backend: OnnxRuntimeBackend

    def hold(self, model: onnx.ModelProto) -> bool:
        """Whether a form of the source's network keeps them."""
        with self.backend.runner(model) as runner:
            outputs = run_all(runner, self._verifying)
        comparison = compare_outputs(self._reference, outputs, self._verifying)
        return not beyond(comparison, self.goal.max_error, self.goal.max_accuracy_drop)

    @cached_property
    def _verifying(self) -> Samples:
        return self.samples.split()[1]

    @cached_property
    def _reference(self) -> Outputs:
        with self.backend.runner(self.source.path) as runner:
            return run_all(runner, self._verifying)
