"""Make of a network the ONNX model that TensorRT's parser takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs

from tdc_deploy.backends.tensorrt.compatibility import least_device
from tdc_deploy.backends.tensorrt.options import HardwareCompatibility, IoPrecision
from tdc_deploy.errors import TdcError
from tdc_deploy.graph import functions as op
from tdc_deploy.graph.half import to_half
from tdc_deploy.graph.half_io import to_half_io
from tdc_deploy.graph.network import Network, fused_nodes, model_of
from tdc_deploy.graph.padding import pad_ranks
from tdc_deploy.graph.shapes import Shape, infer_shapes
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.model import PrecisionName, tactics_attribute
from tdc_deploy.profiling.analytical.shapes import RANK_STEP, TuckerShape
from tdc_deploy.types import ConvLayer, Ranks

# What the parser of TensorRT 8 knows; later IR versions add nothing that these files use.
TENSORRT_8_IR_VERSION = 8


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model for the parser; `fused` names its plugin nodes."""

    model: onnx.ModelProto
    fused: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def prepare(
    network: Network,
    shapes: Mapping[str, Shape],
    device: Device,
    precision: PrecisionName,
    tensorrt_major: int,
    *,
    hardware: HardwareCompatibility = "none",
    io_precision: IoPrecision = "fp32",
) -> Prepared:
    """A copy with ranks padded, tactics written, types rewritten and function bodies stripped.

    Args:
        network: float32, with chains fused or not.
        shapes: of its inputs, those that the engine is optimised for.
        io_precision: of float32 inputs and outputs.
        hardware: which GPUs must run the engine, and so its tactics, besides `device`.

    Raises:
        TdcError: no kernel runs a fused layer on the device, or a weight is beyond fp16's range.
    """
    copied = network.copy()
    pad_ranks(copied, RANK_STEP)
    write_tactics(copied, shapes, device, precision, least_device(device, hardware))
    warnings = to_half(copied) if precision == "fp16" else []
    if io_precision == "fp16":
        to_half_io(copied)
    fused = tuple(node.name for node in fused_nodes(copied.graph))
    return Prepared(_stripped(copied, tensorrt_major), fused, tuple(warnings))


def write_tactics(
    network: Network,
    shapes: Mapping[str, Shape],
    device: Device,
    precision: PrecisionName,
    least: Device,
) -> None:
    """Give every fused node the attribute `tactics`: the kernels that should be fastest, in place.

    They are those that `least` runs too.
    """
    fused = fused_nodes(network.graph)
    known = infer_shapes(network, shapes) if fused else {}
    for node in fused:
        x = known.get(node.inputs[op.X].name)
        if x is None:
            raise TdcError(
                f"the shape of {node.inputs[op.X].name!r}, the input of {node.name!r}, "
                "does not follow from the network's input shapes",
                expected="a network whose shapes are known",
                fix="keep this chain unfused",
            )
        layer = _layer_of(node, x)
        ranks = Ranks(node.inputs[op.FIRST].shape[0], node.inputs[op.LAST].shape[1])
        shape = TuckerShape.of_layer(layer, ranks, node.op == op.TUCKER_CONV_ADD)
        tactics = tactics_attribute(shape, device, precision, least)
        if not tactics:
            raise TdcError(
                f"no kernel of the plugin runs {node.name!r} in {precision} on {least.name}",
                expected="a layer that the kernels hold",
                fix="build with another --precision, or keep this chain unfused",
            )
        node.attrs["tactics"] = tactics


def _layer_of(node: gs.Node, x: Shape) -> ConvLayer:
    """The convolution that a fused node computes."""
    inputs, attrs = node.inputs, node.attrs
    kh, kw, _, _ = inputs[op.CORE].shape
    top, left, bottom, right = attrs["pads"]
    return ConvLayer(
        node.name,
        inputs[op.FIRST].shape[1],
        inputs[op.LAST].shape[0],
        (kh, kw),
        tuple(attrs["strides"]),
        (top, left, bottom, right),
        tuple(attrs["dilations"]),
        1,
        "float32",
        x[0],
        (x[2], x[3]),
    )


def _stripped(network: Network, tensorrt_major: int) -> onnx.ModelProto:
    """The model without the operators' bodies: a parser that sees one may prefer it to the plugin."""
    model = model_of(network)
    others = [function for function in model.functions if function.domain != op.DOMAIN]
    del model.functions[:]
    model.functions.extend(others)
    del model.metadata_props[:]
    if tensorrt_major < 10:
        model.ir_version = min(model.ir_version, TENSORRT_8_IR_VERSION)
    return model
