"""Measure INT8 networks of selections: time against dense INT8, error against the float32 source."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from tdc_calibration.calibrators import Calibrator
from tdc_calibration.int8 import REVISION, Scheme
from tdc_calibration.int8_network import Int8Network, layers_of
from tdc_deploy.backends.base import Backend
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.compress import Selection, decompose_layers
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.graph.network import Network
from tdc_deploy.profiling.store import Store
from tdc_deploy.samples import Samples

# So many calibrate each network that a plan is tried as; what is built is calibrated on all.
TRIAL_SAMPLES = 32


def int8_backend(backend: OnnxRuntimeBackend, scheme: Scheme) -> OnnxRuntimeBackend:
    """The backend as it is described where INT8 models are measured."""
    return replace(backend, precision=f"int8 ({scheme})")


class Int8Evaluator(Evaluator):
    """As `plain` does, but in INT8, with the dense layers `keep` left in float32 in every network.

    Times are shares of the dense INT8 network's, so that a plan made with it says what decomposing gains
    besides.
    """

    def __init__(
        self,
        plain: Evaluator,
        backend: OnnxRuntimeBackend,
        store: Store,
        scheme: Scheme,
        calibrator: Calibrator,
        calibration: Samples,
        keep: Sequence[str],
    ) -> None:
        super().__init__(plain.source, plain.given, int8_backend(backend, scheme), store)
        self._plain = plain
        self._float_backend = backend
        self._scheme = scheme
        self._calibrator = calibrator
        self._calibration = calibration.spread(TRIAL_SAMPLES)
        self._keep = sorted(keep)

    @cached_property
    def _dense_model(self) -> onnx.ModelProto:
        return self.model({})

    @property
    def rival(self) -> onnx.ModelProto | Path:
        """What trials are timed against: the dense INT8 network."""
        return self._dense_model

    def error(self, selection: Selection) -> float:
        """What the decomposition alone loses, measured in float32: rounding would hide little losses."""
        return self._plain.error(selection)

    def error_alone(self) -> Callable[[Selection], float]:
        """The same of single layers, as it was measured for the float32 plan."""
        return self._plain.error_alone()

    def model(self, selection: Selection, refine: bool = False) -> onnx.ModelProto:
        """The selection's network in Q/DQ form, calibrated on a few samples."""
        network = self.network(selection, refine)
        backend: Backend = self._float_backend
        quantised = Int8Network(network, self._calibration, backend, self._scheme)
        model = quantised.model(self._calibrator, self.kept_in(network))
        del network, quantised
        gc.collect()  # graphs under surgery are cyclic
        return model

    def network(self, selection: Selection, refine: bool = False) -> Network:
        """The selection's network in float32, its chains not fused."""
        repair = self._plain.repair if selection else None
        return decompose_layers(self.source, selection, repair, refine)

    def kept_in(self, network: Network) -> list[str]:
        """The layers of a network that stay in float32."""
        return [layer for layer in layers_of(network) if layer in self._keep]

    def _describe_network(self, backend: Backend, selection: Selection) -> dict[str, Any]:
        described: Mapping[str, Any] = super()._describe_network(backend, selection)
        return {
            **described,
            "int8": REVISION,
            "calibrator": self._calibrator,
            "calibration": self._calibration.sha256,
            "keep": self._keep,
        }
