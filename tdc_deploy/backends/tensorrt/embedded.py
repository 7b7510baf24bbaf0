"""Fused nodes whose kernels travel in the engine: which they are, and what TensorRT is told of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_graphsurgeon as gs

from tdc_deploy.backends.tensorrt.embedded_kernels import (
    embedded_kernels,
    fitting_tactics,
    why_not,
)
from tdc_deploy.backends.tensorrt.embedded_layer import EmbeddedLayer, LaunchedKernel
from tdc_deploy.backends.tensorrt.embedded_plugin import ATTRIBUTE, NAMESPACE, keep_layer
from tdc_deploy.backends.tensorrt.fused_layers import fused_layers
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.functions import SLOPES
from tdc_deploy.graph.fuse import unfuse
from tdc_deploy.graph.network import Network
from tdc_deploy.graph.shapes import Shape
from tdc_deploy.plugin.ptx import compile_ptx, isa_version
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.model import PrecisionName, predict
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.progress import Progress, silent


@dataclass(frozen=True)
class Embedding:
    """For what the embedded kernels are chosen and compiled.

    `least` has what every GPU has that shall run the engine: `device` itself, where that is one kind.
    """

    device: Device
    precision: PrecisionName
    least: Device
    progress: Progress = silent

    def predicted_us(self, shape: TuckerShape) -> float:
        """Microseconds that a layer's best kernel is predicted to take; infinite where it would stay three
        convolutions.
        """
        chosen = (shape, self.device, self.precision, self.least)
        if why_not(*chosen) is not None:
            return math.inf
        return predict(fitting_tactics(*chosen)[0], shape, self.device).us

    def leave_native(self, network: Network, shapes: Mapping[str, Shape]) -> list[str]:
        """Take apart, in place, the fused nodes that have no good kernel; say of each why.

        Raises:
            TdcError: no fused node is left.
        """
        reasons = {
            node.name: reason
            for node, shape in fused_layers(network, shapes)
            if (reason := why_not(shape, self.device, self.precision, self.least)) is not None
        }
        said = [f"{name} stays three convolutions: {reason}" for name, reason in reasons.items()]
        unfuse(network, list(reasons))
        if reasons and not fused_layers(network, shapes):
            raise TdcError(
                f"no chain has a kernel that can travel in an engine: {'; '.join(said)}",
                expected="smaller ranks or tiles: TensorRT gives such a kernel 48 KB of shared memory",
                fix="build with --plugin-mode library, which has larger kernels",
            )
        return said

    def write_kernels(self, network: Network, shapes: Mapping[str, Shape]) -> str | None:
        """Compile every fused node's kernels, and make it a node of the embedded plugin, in place.

        Returns the version of the kernels' PTX, of which a driver that is older cannot load the engine.

        Raises:
            TdcError: nvcc is missing or refuses.
        """
        layers = fused_layers(network, shapes)
        version = None
        for done, (node, shape) in enumerate(layers):
            self.progress("compiling kernels", done, len(layers))
            layer = self._layer(node, shape)
            # One nvcc compiles them all.
            version = isa_version(Path(next(iter(layer.kernels.values())).ptx))
            node.attrs |= {
                ATTRIBUTE: keep_layer(layer),
                "plugin_namespace": NAMESPACE,
                # Which of a Python plugin's implementations the parser asks for.
                "aot": 1,
            }
        return version

    def _layer(self, node: gs.Node, shape: TuckerShape) -> EmbeddedLayer:
        first, core, last = (float(node.attrs[slope]) for slope in SLOPES)
        kernels = embedded_kernels(
            shape, (first, core, last), self.device, self.precision, self.least
        )
        return EmbeddedLayer(
            "FP16" if self.precision == "fp16" else "FP32",
            shape.kernel,
            shape.strides,
            shape.pads,
            shape.dilations,
            {
                kernel.number: LaunchedKernel(
                    str(compile_ptx(kernel.source, self.least.compute_capability)),
                    kernel.tile,
                    kernel.threads,
                    kernel.shared_bytes,
                )
                for kernel in kernels
            },
        )
