"""Make of a network the ONNX model that TensorRT's parser takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from tdc_deploy.backends.tensorrt.compatibility import least_device
from tdc_deploy.backends.tensorrt.embedded import Embedding
from tdc_deploy.backends.tensorrt.fused_layers import fused_layers
from tdc_deploy.backends.tensorrt.options import HardwareCompatibility, IoPrecision
from tdc_deploy.errors import TdcError
from tdc_deploy.graph import functions as op
from tdc_deploy.graph.half import to_half
from tdc_deploy.graph.half_io import to_half_io
from tdc_deploy.graph.network import Network, fused_nodes, model_of
from tdc_deploy.graph.padding import pad_ranks
from tdc_deploy.graph.shapes import Shape
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.model import PrecisionName, tactics_attribute
from tdc_deploy.profiling.analytical.shapes import RANK_STEP

# What the parser of TensorRT 8 knows; later IR versions add nothing that these files use.
TENSORRT_8_IR_VERSION = 8


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model for the parser; `fused` names its plugin nodes, `ptx` is the version of the PTX of kernels
    that travel in the engine; `int8` says that it is in Q/DQ form.
    """

    model: onnx.ModelProto
    fused: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    ptx: str | None = None
    int8: bool = False


def prepare_quantised(
    network: Network, notes: Sequence[str], tensorrt_major: int, io_precision: IoPrecision = "fp32"
) -> Prepared:
    """A copy of a network in Q/DQ form, which has no fused chain, for TensorRT's parser.

    What is not INT8 stays float32: a Cast between DequantizeLinear and a convolution would keep TensorRT
    from its INT8 kernels.
    """
    copied = network.copy()
    if io_precision == "fp16":
        to_half_io(copied)
    return Prepared(_stripped(copied, tensorrt_major), (), tuple(notes), int8=True)


def prepare(
    network: Network,
    shapes: Mapping[str, Shape],
    device: Device,
    precision: PrecisionName,
    tensorrt_major: int,
    *,
    hardware: HardwareCompatibility = "none",
    io_precision: IoPrecision = "fp32",
    embedding: Embedding | None = None,
) -> Prepared:
    """A copy with ranks padded, tactics written, types rewritten and function bodies stripped.

    Args:
        network: float32, with chains fused or not.
        shapes: of its inputs, those that the engine is optimised for.
        device: what it is built on.
        precision: what it shall compute in.
        tensorrt_major: whose parser reads it.
        io_precision: of float32 inputs and outputs.
        hardware: which GPUs must run the engine, and so its tactics, besides `device`.
        embedding: where given, kernels are embedded instead of the library's tactics written; chains
            without one are taken apart.

    Raises:
        TdcError: no kernel runs a fused layer on the device, or a weight is beyond fp16's range.
    """
    copied = network.copy()
    warnings = [] if embedding is None else embedding.leave_native(copied, shapes)
    pad_ranks(copied, RANK_STEP)
    ptx = None
    if embedding is None:
        write_tactics(copied, shapes, device, precision, least_device(device, hardware))
    else:
        ptx = embedding.write_kernels(copied, shapes)
    if precision == "fp16":
        warnings += to_half(copied)
    if io_precision == "fp16":
        to_half_io(copied)
    fused = tuple(node.name for node in fused_nodes(copied.graph))
    return Prepared(_stripped(copied, tensorrt_major), fused, tuple(warnings), ptx)


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
    for node, shape in fused_layers(network, shapes):
        tactics = tactics_attribute(shape, device, precision, least)
        if not tactics:
            raise TdcError(
                f"no kernel of the plugin runs {node.name!r} in {precision} on {least.name}",
                expected="a layer that the kernels hold",
                fix="build with another --precision, or keep this chain unfused",
            )
        node.attrs["tactics"] = tactics


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
