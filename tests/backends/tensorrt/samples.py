"""What engine inspectors answer, written by hand in the forms that NVIDIA documents."""

from __future__ import annotations

import json
from typing import Any

WORDS = {
    "float16": "Channel major FP16 format where channel % 8 == 0",
    "float32": "Row major linear FP32",
}
SHORT = {"float16": "Half", "float32": "Float", "int8": "Int8", "bfloat16": "BFloat16"}


def tensor(name: str, dtype: str, form: str) -> dict[str, Any]:
    """A layer's tensor as TensorRT 8 (in words), 10 (short) or 11 (split) describes it."""
    entry: dict[str, Any] = {"Name": name, "Dimensions": [1, 64, 56, 56]}
    if form == "8":
        return {**entry, "Location": "Device", "Format/Datatype": WORDS[dtype]}
    if form == "10":
        return {**entry, "Location": "Device", "Format/Datatype": SHORT[dtype]}
    return {**entry, "Format": "Row major linear format (kLINEAR)", "Datatype": SHORT[dtype]}


def layer(
    name: str,
    kind: str,
    inputs: list[str],
    output: str,
    dtype: str = "float32",
    *,
    form: str = "10",
    tactic: str = "",
) -> dict[str, Any]:
    """A layer all of whose tensors are of one type."""
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [tensor(each, dtype, form) for each in inputs],
        "Outputs": [tensor(output, dtype, form)],
        "ParameterType": kind,
        "TacticName": tactic,
        "Metadata": f"[ONNX Layer: {name}]",
    }


def engine_text(layers: list[Any], form: str = "10") -> str:
    """The whole engine's information."""
    if form == "11":
        io: dict[str, Any] = {
            "I/O Tensors": [
                {"Name": "image", "IOMode": "Input", "DataType": "Float", "Dimensions": [1, 3]},
                {"Name": "logits", "IOMode": "Output", "DataType": "Float", "Dimensions": [1, 9]},
            ]
        }
    else:
        io = {"Bindings": ["image", "logits"]}
    return json.dumps({"Layers": layers, **io})


PLUGIN_INPUTS = ["x", "first", "first_bias", "core", "core_bias", "last", "bias"]


def network(dtype: str, form: str, tactic: str = "sm80_xmma_fprop_implicit_gemm") -> str:
    """A convolution, a plugin, a fused group and a reformat in front of them."""
    convolution = "CaskConvolution" if form == "8" else "Convolution"
    plugin = "PluginV2" if form == "8" else "PluginV3"
    return engine_text(
        [
            layer("Reformatting CopyNode", "Reformat", ["image"], "half", form=form),
            layer("conv1", convolution, ["half"], "x", dtype, form=form, tactic=tactic),
            layer("conv2.last", plugin, PLUGIN_INPUTS, "y", dtype, form=form),
            layer("__myl_Exp", "kgen", ["y"], "z", form=form),
            layer("fc", "gemm", ["z"], "logits", dtype, form=form),
        ],
        form,
    )
