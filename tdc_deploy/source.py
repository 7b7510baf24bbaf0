"""The model that came in, read once: its graph, its shapes, its convolutions and its chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tdc_deploy.decompositions import Decompositions
from tdc_deploy.errors import TdcError
from tdc_deploy.files import files_sha256
from tdc_deploy.graph.chains import Chain, compressed_chains, find_chains
from tdc_deploy.graph.convs import FoundConv, bias, find_convs, kernel
from tdc_deploy.graph.network import Network
from tdc_deploy.graph.read import model_files, read_network
from tdc_deploy.graph.shapes import Shape, Shapes, infer_shapes, input_shapes
from tdc_deploy.graph.understand import understanding
from tdc_deploy.observe import observed_inputs
from tdc_deploy.statistics import LayerStatistics
from tdc_deploy.tucker import dense_cost
from tdc_deploy.tucker.moments import check_moment
from tdc_deploy.types import ConvLayer


@dataclass(frozen=True, eq=False)
class Source:
    """A model file, un-fused and with BatchNorm folded.

    `inputs` are the input shapes it is planned at, `shapes` those of every tensor. `compressed` are
    the chains that came in as Tucker decompositions; their convolutions are not planned again.
    With `statistics` its layers are decomposed for the inputs that they were measured on.
    """

    path: Path
    sha256: str
    network: Network
    inputs: Shapes
    shapes: Shapes
    convs: dict[str, FoundConv]
    compressed: list[Chain]
    statistics: LayerStatistics | None = None

    @property
    def plannable(self) -> dict[str, ConvLayer]:
        """The layers that may be decomposed, by name."""
        taken = {node.name for chain in self.compressed for node in chain.nodes.values()}
        return {
            name: conv.layer
            for name, conv in self.convs.items()
            if conv.layer is not None and not conv.reason and name not in taken
        }

    @property
    def is_compressed(self) -> bool:
        """True if the model came in compressed, so that it needs no planning unless it is asked for:
        it has chains, and most of its arithmetic is not in layers that could still be decomposed.
        """
        if not self.compressed:
            return False
        plannable = self.plannable
        macs = {
            name: dense_cost(conv.layer).macs
            for name, conv in self.convs.items()
            if conv.layer is not None
        }
        return 2 * sum(macs[name] for name in plannable) < sum(macs.values())

    @cached_property
    def decompositions(self) -> Decompositions:
        """What the layers' kernels come to in other forms, and what they lose."""
        moments = {} if self.statistics is None else self.statistics.moments
        return Decompositions(lambda name: kernel(self.convs[name].node), moments)

    def with_statistics(self, statistics: LayerStatistics) -> Source:
        """The same, decomposed for the inputs that the statistics were measured on.

        A layer that they do not name is decomposed as without any.

        Raises:
            TdcError: they name no layer of this model, or a moment is not one of the layer's patches.
        """
        layers = self.plannable
        known = [name for name in layers if name in statistics.moments]
        if layers and not known:
            raise TdcError(
                f"statistics of layers that {self.path} does not have: {sorted(statistics.moments)}",
                expected="second moments of its convolutions",
                fix="measure them on this model",
            )
        for name in known:
            layer = layers[name]
            try:
                check_moment((layer.c_out, layer.c_in, *layer.kernel), statistics.moments[name])
            except TdcError as error:
                raise TdcError(
                    f"layer {name!r}: {error.received}", expected=error.expected, fix=error.fix
                ) from None
        return replace(self, statistics=statistics)


def read_source(path: Path, given_shapes: Mapping[str, Shape] | None = None) -> Source:
    """Read a model for planning at its own input shapes, or the given ones.

    Raises:
        TdcError: the file is no valid ONNX model, or the shapes do not fit it.
    """
    network = read_network(path)
    with understanding(path):
        inputs = input_shapes(network.graph, given_shapes)
        shapes = infer_shapes(network, inputs)
        shapes |= observed_inputs(network, inputs, shapes)
        convs = {conv.name: conv for conv in find_convs(network.graph, shapes)}
        _check_finite(path, convs)
        compressed = compressed_chains(network, find_chains(network, shapes))
    return Source(path, files_sha256(model_files(path)), network, inputs, shapes, convs, compressed)


def _check_finite(path: Path, convs: Mapping[str, FoundConv]) -> None:
    for name, conv in convs.items():
        if conv.layer is None or conv.reason:
            continue
        stored_bias = bias(conv.node)
        finite = np.isfinite(kernel(conv.node)).all()
        if not finite or not (stored_bias is None or np.isfinite(stored_bias).all()):
            raise TdcError(
                f"the weight or bias of {name!r} in {path} holds NaN or infinity",
                expected="finite weights",
                fix="export the model from a checkpoint that trained without diverging",
            )
