"""Hold an engine, as its inspector describes it, against what was asked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tdc_deploy.backends.tensorrt.inspector import EngineLayer
from tdc_deploy.errors import TdcError
from tdc_deploy.graph import functions as op
from tdc_deploy.profiling.analytical.model import PrecisionName

_CONVERTING = re.compile(r"reformat|^cast", re.IGNORECASE)
_WEIGHTS = range(op.FIRST, op.R)


@dataclass(frozen=True)
class BuiltPrecision:
    """What an engine's convolutions, matrix products and plugins compute in.

    `name` is fp32, tf32, fp16, int8, or mixed; `layers` counts them by the type of their inputs.
    """

    name: str
    layers: dict[str, int]


def check_precision(
    layers: Sequence[EngineLayer], asked: PrecisionName | Literal["int8"]
) -> BuiltPrecision:
    """What the engine computes in.

    An engine without any fp16 layer is not what was asked for with fp16, and so with int8. Others may be
    there: before strong typing both are permissions that TensorRT need not use, and since then the file
    says of some layers that they stay fp32. TF32 is always only a permission.

    Raises:
        TdcError: it is not what was asked for.
    """
    computing = [layer for layer in layers if layer.computes]
    built = _built(computing)
    wanted = {"fp16": "float16", "int8": "int8"}.get(asked)
    if wanted is not None:
        wrong = built.layers.get(wanted, 0) == 0
    else:
        # Permissions are not promises: fp32 may come out of tf32, and nothing else out of fp32.
        allowed = ("fp32",) if asked == "fp32" else ("fp32", "tf32")
        wrong = bool(computing) and built.name not in allowed
    if wrong:
        counts = ", ".join(f"{count} {name}" for name, count in built.layers.items()) or "none"
        raise TdcError(
            f"the engine computes in {built.name} (layers by input type: {counts})",
            expected=f"{asked}, which was asked for",
            fix="build with another --precision; if TensorRT ignores it, please report this",
        )
    return built


def check_weight_reformats(layers: Sequence[EngineLayer]) -> None:
    """Raise TdcError if TensorRT converts a weight of our operators at every inference."""
    made_by = {tensor.name: layer for layer in layers for tensor in layer.outputs}
    for layer in layers:
        if not layer.is_plugin:
            continue
        for i, tensor in enumerate(layer.inputs):
            maker = made_by.get(tensor.name)
            converted = maker is not None and _CONVERTING.search(maker.kind)
            if i in _WEIGHTS and (converted or tensor.name.startswith("Reformatted Input")):
                raise TdcError(
                    f"TensorRT converts input {i} of {layer.name!r}, a weight, at every inference",
                    expected="weights that are stored as the plugin reads them",
                    fix="build with another --precision; please report this",
                )


def _built(computing: Sequence[EngineLayer]) -> BuiltPrecision:
    types = [_type_of(layer) for layer in computing]
    counts = dict(Counter(types))
    if set(counts) == {"int8"}:
        return BuiltPrecision("int8", counts)
    if set(counts) == {"float16"}:
        return BuiltPrecision("fp16", counts)
    if set(counts) <= {"float32"}:
        tf32 = any("tf32" in layer.tactic.lower() for layer in computing)
        return BuiltPrecision("tf32" if tf32 else "fp32", counts)
    return BuiltPrecision("mixed", counts)


def _type_of(layer: EngineLayer) -> str:
    """The type that the layer computes in: that of its data, its first floating-point input."""
    known = [tensor.dtype for tensor in layer.inputs if tensor.dtype]
    return next((dtype for dtype in known if "float" in dtype), next(iter(known), "unknown"))
