"""One network in 8 bits as TensorRT computes it: calibrated once, then written with any layers in INT8."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from tdc_calibration.calibrators import Calibrator
from tdc_calibration.int8 import Scheme
from tdc_calibration.int8_engine import OPSET, quantise_for_tensorrt
from tdc_calibration.int8_network import Int8Network, layers_of
from tdc_deploy.backends.base import Backend
from tdc_deploy.graph.network import Network, model_of
from tdc_deploy.graph.opset import with_opset
from tdc_deploy.samples import Samples


class EngineInt8Network(Int8Network):
    """As `Int8Network`, of the form that `quantise_for_tensorrt` makes: `layers` are the convolutions.

    `exact` are nodes that stay float32, and their layers with them.

    Raises:
        TdcError: the network cannot be brought to the opset that the form needs.
    """

    symmetric = True

    def __init__(
        self, network: Network, samples: Samples, backend: Backend, exact: Collection[str] = ()
    ) -> None:
        network = with_opset(network, OPSET)
        super().__init__(network, samples, backend, Scheme("int8", 8))
        self._held = frozenset(exact)
        convs = {node.name for node in network.graph.nodes if node.op == "Conv"}
        self.layers = {
            layer: nodes
            for layer, nodes in layers_of(network).items()
            if convs >= set(nodes) and not self._held & set(nodes)
        }

    def in_int8(self, calibrator: Calibrator, layers: Collection[str]) -> Network:
        """The network with these layers in Q/DQ form, and everything else as it is."""
        chosen = set(self.nodes_of(layers))
        keep = {node.name for node in self.network.graph.nodes if node.op == "Conv"} - chosen
        return quantise_for_tensorrt(self.network, self.ranges(calibrator), keep | self._held)

    def model(self, calibrator: Calibrator, keep: Collection[str] = ()) -> onnx.ModelProto:
        """The network in Q/DQ form, with the layers `keep` as they are."""
        layers = [layer for layer in self.layers if layer not in keep]
        return model_of(self.in_int8(calibrator, layers))
