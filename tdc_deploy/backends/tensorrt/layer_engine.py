"""Engines of single layers, whose tensors are as they would be inside a network."""

from __future__ import annotations

from typing import Any

from tdc_deploy.backends.tensorrt.api import tensorrt
from tdc_deploy.backends.tensorrt.engine import build_plan, dtype_name, load_engine, tensors_of
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.prepare import Prepared
from tdc_deploy.backends.tensorrt.profiles import Ranges
from tdc_deploy.backends.tensorrt.runner import Runnable
from tdc_deploy.profiling.analytical.model import PrecisionName
from tdc_deploy.progress import silent

# The layout that TensorRT's own kernels for a precision want, by its name in TensorFormat: channels last
# for tensor cores, planes for the others.
LAYOUTS: dict[PrecisionName, str] = {"fp16": "HWC8", "tf32": "HWC", "fp32": "LINEAR"}

# Those of 8 bits, by how many channels make a vector, the best first.
INT8_LAYOUTS = ((32, "CHW32"), (4, "CHW4"), (1, "LINEAR"))

# Channels that do not fill whole vectors would make a buffer larger than its shape says; a network's own
# image, of three channels, comes as planes anyway.
VECTOR = 8


def build_layer(prepared: Prepared, ranges: Ranges, options: EngineOptions) -> Runnable:
    """Build the engine of one layer, its inputs and outputs bound to the layout between layers.

    Its precision is not read back: on TensorRT 8 fp16 is a permission, and what a layer makes of it is
    what is to be timed.

    Raises:
        TdcError: TensorRT refuses the layer, or the layout for it.
        KeyboardInterrupt: Ctrl-C.
    """
    trt = tensorrt()

    def bind(network: Any) -> None:
        bind_layouts(trt, network, options.precision)

    # One layer takes seconds: the caller's bar counts layers.
    plan = build_plan(trt, prepared, ranges, options, silent, bind)
    return Runnable(plan, *tensors_of(trt, load_engine(plan)))


def bind_layouts(trt: Any, network: Any, precision: PrecisionName) -> None:
    """Allow each input and output of a TensorRT network one layout only, else TensorRT would take
    planes and time a conversion.
    """
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    for tensor in tensors:
        channels = tensor.shape[1]
        int8 = dtype_name(tensor.dtype) == "int8"
        layout = int8_layout_of(channels) if int8 else layout_of(precision, channels)
        tensor.allowed_formats = 1 << int(getattr(trt.TensorFormat, layout))


def layout_of(precision: PrecisionName, channels: int) -> str:
    """The layout of a tensor [N, C, H, W] of that many channels."""
    return LAYOUTS[precision] if channels % VECTOR == 0 else "LINEAR"


def int8_layout_of(channels: int) -> str:
    """The layout of an int8 tensor [N, C, H, W] of that many channels, which fill its vectors."""
    return next(name for vector, name in INT8_LAYOUTS if channels % vector == 0)
