"""What a plan may choose from on a GPU, where each candidate that is measured takes an engine's build."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from tdc_deploy.graph.chains import FUSABLE_KERNELS, find_chains
from tdc_deploy.graph.convs import canonicalise
from tdc_deploy.graph.fuse import fuse
from tdc_deploy.graph.network import model_of, network_of
from tdc_deploy.graph.shapes import infer_shapes
from tdc_deploy.profiling.analytical import constants
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.model import PRECISIONS, PrecisionName, rank
from tdc_deploy.profiling.analytical.model import roofline as tucker_roofline
from tdc_deploy.profiling.analytical.shapes import RANK_STEP, TuckerShape
from tdc_deploy.profiling.bounds import Roofline
from tdc_deploy.profiling.layers import layer_model
from tdc_deploy.ranks.candidates import enumerate_candidates, enumerate_tdc_candidates
from tdc_deploy.tucker.cost import chain_layers, dense_cost
from tdc_deploy.types import Candidate, ConvLayer, Form, Implementation, Precision

MOST_FUSED = 12
MOST_NATIVE: dict[Form, int] = {"tucker2": 8, "tucker_in": 3, "tucker_out": 3, "svd": 12}
"""So many candidates of a shape are measured: with the 11 shapes of a ResNet-18, three of them 1x1, no more
than 11 + 8 * 26 + 3 * 12 = 255 engines."""


@dataclass(frozen=True)
class GpuChoices:
    """Tucker-2 as the fused operator and as three convolutions, the other forms as convolutions.

    Predicted times say which are worth an engine: they are not good enough to choose by, but for ranks of
    one layer in one form they have an order. `fused_us` gives those of the operator, in microseconds, where
    it has other kernels than the library's.
    """

    device: Device
    precision: PrecisionName
    paper_grid: bool = False
    fused_us: Callable[[TuckerShape], float] | None = None

    @property
    def revisions(self) -> Mapping[Precision, int]:
        """None: what is built of a layer is in the backend's key."""
        return {}

    def offered(self, layer: ConvLayer) -> list[Candidate]:
        """The candidates of a layer but dense; ranks are multiples of 8, the kernels' vectors."""
        listed = (enumerate_tdc_candidates if self.paper_grid else enumerate_candidates)(layer)
        whole = [c for c in listed if _is_aligned(layer, c)]
        native = [Candidate(c.form, c.ranks) for c in whole]
        if not all(size in FUSABLE_KERNELS for size in layer.kernel):
            return native
        return [c for c in whole if c.implementation == "fused"] + native

    def worth_measuring(
        self,
        layer: ConvLayer,
        candidates: Sequence[Candidate],
        errors: NDArray[np.float64],
        dense_ms: float,
        roofline: Roofline,
    ) -> list[int]:
        """Indices of the candidates to measure for layers of one shape.

        Of the fused ones, and of each native form: what no roofline rules out, what is predicted to be
        faster than all that lose no more, and of too many of these, an even spread. Predictions of
        different forms are not compared.
        """
        groups: dict[tuple[Implementation, Form], list[tuple[float, float, int]]] = {}
        for i, candidate in enumerate(candidates):
            bounds = (bound.lower_bound(layer, candidate) for bound in (self, roofline))
            if max(bounds) < dense_ms and (ms := self.predicted(layer, candidate)) < math.inf:
                group = groups.setdefault((candidate.implementation, candidate.form), [])
                group.append((ms, float(errors[:, i].sum()), i))
        kept: list[int] = []
        for (implementation, form), group in groups.items():
            most = MOST_FUSED if implementation == "fused" else MOST_NATIVE[form]
            kept += _spread(_front([i for *_, i in sorted(group)], errors), most)
        return kept

    def model(self, layer: ConvLayer, candidate: Candidate) -> onnx.ModelProto:
        """A model of just this layer, with the operator in it if it is fused."""
        model = layer_model(layer, candidate)
        if candidate.implementation == "native":
            return model
        network = network_of(model)
        canonicalise(network.graph)
        fuse(network, find_chains(network, infer_shapes(network, {})))
        return model_of(network)

    def lower_bound(self, layer: ConvLayer, candidate: Candidate) -> float:
        """Milliseconds that the candidate takes at least, at the GPU's full rates."""
        if candidate.implementation == "fused":
            shape = _shape(layer, candidate)
            return min(self._fused_roofline_us(shape)) * 1e-3
        return sum(self._roofline_us(part) for part in chain_layers(layer, candidate)) * 1e-3

    def predicted(self, layer: ConvLayer, candidate: Candidate) -> float:
        """Milliseconds that the model predicts; infinite where no kernel of the plugin runs it.

        TensorRT's convolutions are taken to be launches at the GPU's full rates.
        """
        if candidate.implementation == "fused":
            if self.fused_us is not None:
                return self.fused_us(_shape(layer, candidate)) * 1e-3
            best = rank(_shape(layer, candidate), self.device, PRECISIONS[self.precision], limit=1)
            return best[0].us * 1e-3 if best else math.inf
        launches = len(chain_layers(layer, candidate)) * constants.NEXT_LAUNCH_US.value
        return self.lower_bound(layer, candidate) + launches * 1e-3

    def _fused_roofline_us(self, shape: TuckerShape) -> list[float]:
        arithmetics = PRECISIONS[self.precision]
        return [tucker_roofline(shape, self.device, arithmetic).us for arithmetic in arithmetics]

    def _roofline_us(self, layer: ConvLayer) -> float:
        """The least that a convolution's arithmetic and its tensors take, in microseconds."""
        rate = max(self.device.flops_per_cycle(a) for a in PRECISIONS[self.precision])
        cost = dense_cost(layer)
        compute = self.device.microseconds(cost.flops / (rate * self.device.multiprocessors))
        moved = cost.params * 4 + cost.activation_bytes
        # `dense_cost` counts float32.
        moved //= 2 if self.precision == "fp16" else 1
        return max(compute, moved / self.device.dram_gb_s * 1e-3)


def _is_aligned(layer: ConvLayer, candidate: Candidate) -> bool:
    """Whether the ranks are multiples of 8; where a form has no rank in a mode, it is the layer's."""
    ranks = candidate.ranks
    assert ranks is not None
    pairs = ((ranks.r_in, layer.c_in), (ranks.r_out, layer.c_out))
    return all(rank % RANK_STEP == 0 or rank == channels for rank, channels in pairs)


def _shape(layer: ConvLayer, candidate: Candidate) -> TuckerShape:
    assert candidate.ranks is not None
    return TuckerShape.of_layer(layer, candidate.ranks)


def _front(fastest_first: Sequence[int], errors: NDArray[np.float64]) -> list[int]:
    """Those that lose less than every faster one, on at least one of the layers."""
    front: list[int] = []
    for i in fastest_first:
        if not front or not (errors[:, front] <= errors[:, [i]]).all(0).any():
            front.append(i)
    return front


def _spread(indices: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly spread over their order."""
    if len(indices) <= most:
        return list(indices)
    chosen = np.linspace(0, len(indices) - 1, most).round().astype(int)
    return [indices[i] for i in chosen]
