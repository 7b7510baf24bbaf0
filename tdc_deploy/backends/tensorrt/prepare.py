"""Make of a network the ONNX model that TensorRT's parser takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from tdc_deploy.backends.tensorrt.api import STRONGLY_TYPED
from tdc_deploy.backends.tensorrt.compatibility import least_device
from tdc_deploy.backends.tensorrt.embedded import Embedding
from tdc_deploy.backends.tensorrt.fused_layers import fused_layers
from tdc_deploy.backends.tensorrt.options import HardwareCompatibility, IoPrecision
from tdc_deploy.errors import TdcError
from tdc_deploy.graph import functions as op
from tdc_deploy.graph.fuse import unfuse
from tdc_deploy.graph.half import QUANTISING, to_half
from tdc_deploy.graph.half_io import to_half_io
from tdc_deploy.graph.names import name_nodes
from tdc_deploy.graph.network import Network, fused_nodes, model_of
from tdc_deploy.graph.padding import pad_ranks
from tdc_deploy.graph.shapes import Shape
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.model import PrecisionName, tactics_attribute
from tdc_deploy.profiling.analytical.shapes import RANK_STEP

# What the parser of TensorRT 8 knows; later IR versions add nothing that these files use.
TENSORRT_8_IR_VERSION = 8

# So many nodes are named in a warning.
MOST_LISTED = 6


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model for the parser; `fused` names its plugin nodes, `ptx` is the version of the PTX of kernels
    that travel in the engine; `int8` says that it is in Q/DQ form. `exact` are the nodes that stay float32
    in fp16, and `precision` is fp32 where that leaves no other node with weights.
    """

    model: onnx.ModelProto
    fused: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    ptx: str | None = None
    int8: bool = False
    exact: tuple[str, ...] = ()
    precision: PrecisionName = "fp32"


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
    exact: Collection[str] = (),
) -> Prepared:
    """A copy with ranks padded, tactics written, types rewritten and function bodies stripped.

    Args:
        network: float32, with chains fused or not; some of it may be in Q/DQ form.
        shapes: of its inputs, those that the engine is optimised for.
        device: what it is built on.
        precision: what it shall compute in.
        tensorrt_major: whose parser reads it.
        io_precision: of float32 inputs and outputs.
        hardware: which GPUs must run the engine, and so its tactics, besides `device`.
        embedding: where given, kernels are embedded instead of the library's tactics written; chains
            without one are taken apart.
        exact: nodes that stay float32 in fp16, by name; those of a fused chain are taken out of it.

    Raises:
        TdcError: no kernel runs a fused layer on the device, or a weight is beyond fp16's range.
    """
    copied = network.copy()
    name_nodes(copied.graph)
    kept: list[str] = []
    if precision == "fp16":
        unfuse(copied, _holding(copied, exact))
        kept = [node.name for node in copied.graph.nodes if node.name in exact]
    int8 = any(node.op in QUANTISING for node in copied.graph.nodes)
    warnings = [] if embedding is None else embedding.leave_native(copied, shapes)
    pad_ranks(copied, RANK_STEP)
    ptx = None
    if embedding is None:
        write_tactics(copied, shapes, device, precision, least_device(device, hardware))
    else:
        ptx = embedding.write_kernels(copied, shapes)
    if precision == "fp16":
        weak = int8 and tensorrt_major < STRONGLY_TYPED[0]
        warnings += to_half(copied, _all_but_fused(copied) if weak else kept, quantising=True)
        if kept:
            warnings.append(
                f"{_listed(kept)} stay float32: fp16 overflows there, or loses too much on the data"
            )
        if kept and not int8 and not _computes_in_half(copied):
            precision = "fp32"
            warnings.append(
                "every layer with weights stays float32: fp16 does not hold this network"
            )
    if io_precision == "fp16":
        to_half_io(copied)
    fused = tuple(node.name for node in fused_nodes(copied.graph))
    model = _stripped(copied, tensorrt_major)
    return Prepared(
        model, fused, tuple(warnings), ptx, int8, exact=tuple(kept), precision=precision
    )


def _holding(network: Network, names: Collection[str]) -> list[str]:
    """The fused nodes that came of a chain with one of the named nodes."""
    return [
        record["name"]
        for record in network.chain_records
        if any(name in names for name in record["nodes"].values())
    ]


def _listed(names: Sequence[str]) -> str:
    few = ", ".join(names[:MOST_LISTED])
    more = len(names) - MOST_LISTED
    return f"{few} and {more} more nodes" if more > 0 else few


def _all_but_fused(network: Network) -> list[str]:
    """What stays float32 in the file beside Q/DQ, where fp16 is a permission that TensorRT uses by itself
    and its parser knows float32 scales only: all but the operators, whose weights have their type.
    """
    return [node.name for node in network.graph.nodes if node.domain != op.DOMAIN]


def _computes_in_half(network: Network) -> bool:
    """Whether anything with weights takes float16."""
    return any(
        isinstance(tensor, gs.Constant) and tensor.dtype == np.float16
        for node in network.graph.nodes
        for tensor in node.inputs
    )


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
