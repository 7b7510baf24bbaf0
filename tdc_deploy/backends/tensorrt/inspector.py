"""Read what TensorRT's engine inspector says: layers, their types and kernels.

The JSON differs by version. Up to 10 a tensor has "Format/Datatype", in words ("Row major linear FP16
format") or short ("Half"); from 11 on it has "Format" and "Datatype" (or "DataType") apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tdc_deploy.errors import TdcError

# The first that matches: BFloat16 holds the word Float.
_DTYPES = (
    (r"bf16|bfloat16", "bfloat16"),
    (r"fp16|half|float16", "float16"),
    (r"fp8", "float8"),
    (r"fp32|float", "float32"),
    (r"int(\d+)", "int"),
    (r"bool", "bool"),
)
_TYPE_KEYS = ("Format/Datatype", "Datatype", "DataType")

_COMPUTING_KIND = re.compile(r"conv|gemm|matrix_?multiply|matmul|plugin", re.IGNORECASE)
_COMPUTING_TACTIC = re.compile(r"fprop|gemm|conv", re.IGNORECASE)
_MOVING_KIND = re.compile(r"reformat|^cast|noop|constant|shuffle", re.IGNORECASE)


@dataclass(frozen=True)
class LayerTensor:
    """A tensor of a layer; `dtype` is a NumPy name, or "" where the inspector does not say."""

    name: str
    dtype: str


@dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine, after TensorRT's fusions."""

    name: str
    kind: str
    inputs: tuple[LayerTensor, ...]
    outputs: tuple[LayerTensor, ...]
    tactic: str

    @property
    def is_plugin(self) -> bool:
        """True for a plugin's layer."""
        return "plugin" in self.kind.lower()

    @property
    def computes(self) -> bool:
        """True for convolutions, matrix products and plugins: what decides an engine's precision."""
        if _MOVING_KIND.search(self.kind):
            return False
        return bool(_COMPUTING_KIND.search(self.kind) or _COMPUTING_TACTIC.search(self.tactic))


def read_layers(text: str) -> tuple[EngineLayer, ...]:
    """The layers in an engine's information as JSON.

    Raises:
        TdcError: it is no such JSON, or the engine was built without detailed profiling verbosity.
    """
    try:
        layers = json.loads(text, strict=False)["Layers"]
    except (ValueError, KeyError, TypeError):
        raise TdcError(
            f"the engine inspector's answer is not understood: {text[:80]!r}",
            expected="JSON with Layers",
        ) from None
    if not all(isinstance(layer, dict) for layer in layers):
        raise TdcError(
            "the engine tells only the names of its layers",
            expected="an engine built with profiling verbosity DETAILED",
            fix="build it with tdc-deploy",
        )
    return tuple(_layer(layer) for layer in layers)


def io_names(text: str) -> tuple[str, ...]:
    """The names of the engine's inputs and outputs."""
    data = json.loads(text, strict=False)
    # A list of names up to TensorRT 10, of objects from 11 on.
    found = data.get("I/O Tensors", data.get("Bindings", []))
    return tuple(entry["Name"] if isinstance(entry, dict) else str(entry) for entry in found)


def dtype_in(text: str) -> str:
    """The element type that a format's description names, or ""."""
    for pattern, name in _DTYPES:
        match = re.search(pattern, text, re.IGNORECASE)
        if match:
            return name + (match[1] if name == "int" else "")
    return ""


def _layer(data: Mapping[str, Any]) -> EngineLayer:
    return EngineLayer(
        str(data.get("Name", "")),
        str(data.get("LayerType", "")),
        tuple(_tensor(entry) for entry in data.get("Inputs") or ()),
        tuple(_tensor(entry) for entry in data.get("Outputs") or ()),
        str(data.get("TacticName", "")),
    )


def _tensor(data: Mapping[str, Any]) -> LayerTensor:
    described = next((str(data[key]) for key in _TYPE_KEYS if data.get(key)), "")
    return LayerTensor(
        str(data.get("Name", "")), dtype_in(described or str(data.get("Format", "")))
    )
