"""What a plan may choose from on a GPU where layers may be in INT8 too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from tdc_deploy.profiling.bounds import Roofline
from tdc_deploy.ranks.gpu_choices import GpuChoices
from tdc_deploy.types import Candidate, ConvLayer, Precision

DENSE_INT8 = Candidate("dense", precision="int8")

# The GPUs' rates in INT8 are twice those in fp16, and so are the elements in a byte.
GAIN = 2.0


@dataclass(frozen=True)
class MixedChoices:
    """What `gpu` offers in fp16, and in INT8 the layer as it came and as three convolutions: a fused chain
    has no INT8 kernel.

    `in_int8` puts the model of a layer in Q/DQ form, `revision` is that form's.
    """

    gpu: GpuChoices
    in_int8: Callable[[onnx.ModelProto], onnx.ModelProto]
    revision: int

    @property
    def revisions(self) -> Mapping[Precision, int]:
        """That of the Q/DQ form."""
        return {"int8": self.revision}

    def offered(self, layer: ConvLayer) -> list[Candidate]:
        """The candidates of a layer but dense in fp16; dense in INT8 is one of them."""
        offered = self.gpu.offered(layer)
        native = [c for c in offered if c.implementation == "native"]
        return [*offered, DENSE_INT8, *(replace(c, precision="int8") for c in native)]

    def worth_measuring(
        self,
        layer: ConvLayer,
        candidates: Sequence[Candidate],
        errors: NDArray[np.float64],
        dense_ms: float,
        roofline: Roofline,
    ) -> list[int]:
        """Indices of the candidates to measure: of each precision those that fp16's predictions choose,
        with INT8 taken to be twice as fast; and dense in INT8.
        """
        kept = []
        for precision in dict.fromkeys(c.precision for c in candidates):
            limit = dense_ms * (GAIN if precision == "int8" else 1.0)
            own = [
                i
                for i, c in enumerate(candidates)
                if c.precision == precision and c.form != "dense"
            ]
            listed = [candidates[i] for i in own]
            chosen = self.gpu.worth_measuring(layer, listed, errors[:, own], limit, roofline)
            kept += [own[i] for i in chosen]
        return kept + [i for i, c in enumerate(candidates) if c.form == "dense"]

    def model(self, layer: ConvLayer, candidate: Candidate) -> onnx.ModelProto:
        """A model of just this layer, in Q/DQ form if it is in INT8."""
        model = self.gpu.model(layer, candidate)
        return self.in_int8(model) if candidate.precision == "int8" else model
