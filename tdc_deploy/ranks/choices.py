"""What a plan may choose from on a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from tdc_deploy.profiling.bounds import Roofline
from tdc_deploy.profiling.layers import layer_model
from tdc_deploy.ranks.candidates import enumerate_candidates, enumerate_tdc_candidates, prune
from tdc_deploy.types import Candidate, ConvLayer, Precision


class Choices(Protocol):
    """Which candidates a layer is offered, which of them are measured, and as what model."""

    @property
    def revisions(self) -> Mapping[Precision, int]:
        """By precision, which version of its form `model` makes: another one is measured anew."""
        ...

    def offered(self, layer: ConvLayer) -> list[Candidate]:
        """The candidates of a layer but dense."""
        ...

    def worth_measuring(
        self,
        layer: ConvLayer,
        candidates: Sequence[Candidate],
        errors: NDArray[np.float64],
        dense_ms: float,
        roofline: Roofline,
    ) -> list[int]:
        """Indices of the candidates to measure, for layers of one shape.

        `errors` [layers, candidates] holds their errors on each layer of that shape; `roofline` is
        that of the dense layers.
        """
        ...

    def model(self, layer: ConvLayer, candidate: Candidate) -> onnx.ModelProto:
        """A model of just this layer in this form; input x [batch, C, H, W]."""
        ...


@dataclass(frozen=True)
class OnnxRuntimeChoices:
    """Every form, a fused chain being as fast as its parts; or the paper's whole grid."""

    paper_grid: bool = False

    @property
    def revisions(self) -> Mapping[Precision, int]:
        """None: a layer's form is its description."""
        return {}

    def offered(self, layer: ConvLayer) -> list[Candidate]:
        """The candidates of a layer but dense."""
        return enumerate_tdc_candidates(layer) if self.paper_grid else enumerate_candidates(layer)

    def worth_measuring(
        self,
        layer: ConvLayer,
        candidates: Sequence[Candidate],
        errors: NDArray[np.float64],
        dense_ms: float,
        roofline: Roofline,
    ) -> list[int]:
        """Indices of the candidates to measure; of the paper's grid, all."""
        if self.paper_grid:
            return list(range(len(candidates)))
        return prune(layer, candidates, errors, dense_ms, roofline)

    def model(self, layer: ConvLayer, candidate: Candidate) -> onnx.ModelProto:
        """A model of just this layer: a chain as its convolutions, which is what a body comes to."""
        return layer_model(layer, candidate)
