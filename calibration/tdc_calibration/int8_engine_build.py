"""Calibrate networks for INT8 engines, on ONNX Runtime, which computes what their Q/DQ form says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx

from tdc_calibration.calibrators import Calibrator
from tdc_calibration.fallback import fall_back
from tdc_calibration.int8_build import MAX_SAMPLES
from tdc_calibration.int8_engine import REVISION, layer_in_int8
from tdc_calibration.int8_engine_network import EngineInt8Network
from tdc_calibration.int8_evaluate import TRIAL_SAMPLES
from tdc_calibration.limits import Limits
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import Network
from tdc_deploy.planner import Goal
from tdc_deploy.progress import Progress, silent
from tdc_deploy.quantising import Quantised
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source


@dataclass(frozen=True, eq=False)
class EngineQuantiser:
    """Makes Q/DQ forms of a source's networks (`tdc_deploy.quantising.Quantiser`).

    Ranges, the calibrator and each layer's error come of the samples that do not verify; those that do
    only say whether the goal's limits hold. `calibrator` None is the one with the least error.
    """

    source: Source
    samples: Samples
    goal: Goal
    calibrator: Calibrator | None
    backend: OnnxRuntimeBackend
    progress: Progress = silent

    @property
    def revision(self) -> int:
        """That of the Q/DQ form."""
        return REVISION

    def __call__(
        self, network: Network, layers: Collection[str] | None, exact: Collection[str]
    ) -> Quantised:
        """The network with these layers in INT8 (None: all), but for those whose rounding is beyond the
        goal's limits, and those with nodes that are `exact`.

        Raises:
            TdcError: it cannot be quantised, or no layer is left in INT8.
        """
        self.progress("calibrating", 0, 1)
        samples = self._calibrating.spread(MAX_SAMPLES)
        made = EngineInt8Network(network, samples, self.backend, exact)
        best = self.calibrator or made.best_calibrator()
        self.progress("calibrating", 1, 1)
        wanted = [layer for layer in made.layers if layers is None or layer in layers]
        others = [layer for layer in made.layers if layer not in wanted]

        def holds(kept: Sequence[str]) -> bool:
            return self._limits.hold(made.model(best, [*others, *kept]))

        kept = fall_back(wanted, lambda layer: made.error_alone(best, layer), holds, self.progress)
        # Where not even the network as it was keeps the limits, rounding is not what is beyond them.
        chosen = [layer for layer in wanted if layer not in (kept or ())]
        if not chosen:
            raise TdcError(
                "no layer is left in INT8 within the limits: it is the network without INT8",
                expected="a limit that rounding to 8 bits keeps",
                fix="raise --max-error or --max-accuracy-drop, or build with --precision fp16",
            )
        return Quantised(made.in_int8(best, chosen), tuple(chosen), tuple(kept or ()), best)

    def trial(self, network: Network, layers: Collection[str], exact: Collection[str]) -> Network:
        """The network with these layers in INT8, calibrated on a few samples."""
        samples = self._calibrating.spread(TRIAL_SAMPLES)
        made = EngineInt8Network(network, samples, self.backend, exact)
        chosen = [layer for layer in made.layers if layer in layers]
        return made.in_int8(self._of_source[1], chosen) if chosen else network

    def rounding(self, layer: str) -> float | None:
        """The error of the source's output where this layer alone computes in INT8; None if it cannot."""
        made, calibrator = self._of_source
        return made.error_alone(calibrator, layer) if layer in made.layers else None

    def layer(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A model of one layer in INT8, from 8 bits to 8 bits."""
        return layer_in_int8(model)

    def describe(self) -> dict[str, Any]:
        """What the trials and roundings depend on besides the network."""
        return {
            "revision": self.revision,
            "calibrator": self.calibrator or "auto",
            "calibration": self._calibrating.spread(TRIAL_SAMPLES).sha256,
        }

    @cached_property
    def _of_source(self) -> tuple[EngineInt8Network, Calibrator]:
        """The source, and the calibrator that is best for it."""
        samples = self._calibrating.spread(TRIAL_SAMPLES)
        made = EngineInt8Network(self.source.network, samples, self.backend)
        return made, self.calibrator or made.best_calibrator()

    @cached_property
    def _calibrating(self) -> Samples:
        return self.samples.split()[0]

    @cached_property
    def _limits(self) -> Limits:
        return Limits(self.source, self.samples, self.goal, self.backend)
