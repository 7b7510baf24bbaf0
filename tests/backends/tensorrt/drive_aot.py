"""Does with NVIDIA's tensorrt.plugin what TensorRT's parser and builder do with an ahead-of-time plugin.

    python drive_aot.py MODULE SITE < question.json

Its libraries are stubs, so the registry and symbolic expressions, which are theirs, are replaced;
everything else is NVIDIA's Python. The question has the node's `name`, its `layer`, the shapes of its
inputs and their formats; the answer is what TensorRT would put into the engine, with the expressions'
values at these shapes.
"""

# ruff: noqa: T201
from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from tdc_deploy.backends.tensorrt.embedded_layer import EmbeddedLayer, LaunchedKernel
from tdc_deploy.backends.tensorrt.embedded_plugin import ATTRIBUTE, keep_layer, register_embedded

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "SUM": lambda a, b: a + b,
    "PROD": lambda a, b: a * b,
    "SUB": lambda a, b: a - b,
    "MAX": max,
    "MIN": min,
    "FLOOR_DIV": lambda a, b: a // b,
    "CEIL_DIV": lambda a, b: -(-a // b),
}


class Expression:
    """IDimensionExpr: a number that only the end of the script looks at."""

    def __init__(self, value: int) -> None:
        self.value = value


class Builder:
    """IExprBuilder."""

    def constant(self, value: int) -> Expression:
        assert value >= 0
        return Expression(value)

    def operation(self, operation: Any, a: Expression, b: Expression) -> Expression:
        return Expression(OPERATIONS[operation.name](a.value, b.value))


class Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> None:
        assert creator.plugin_namespace == namespace
        self.creators[creator.name, creator.plugin_version, namespace] = creator

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators[name, version, namespace]


class Setter(dict[int, Any]):
    """ISymExprs."""

    nbSymExprs = 0  # noqa: N815


def load(name: str, registry: Registry) -> Any:
    trt: Any = importlib.import_module(name)
    trt.get_plugin_registry = lambda: registry
    trt.IDimensionExpr = Expression
    trt.ISymExpr = type("ISymExpr", (), {})
    trt.DimsExprs = lambda length: [None] * length
    # The package `tensorrt` is this one under another name.
    sys.modules["tensorrt"] = trt
    return trt


def layer_of(fields: dict[str, Any]) -> EmbeddedLayer:
    kernels = {int(n): LaunchedKernel(*kernel) for n, kernel in fields.pop("kernels").items()}
    return EmbeddedLayer(**fields, kernels=kernels)


def described(trt: Any, shape: list[int], type_: str, layout: str) -> Any:
    found = trt.DynamicPluginTensorDesc()
    found.desc.dims = trt.Dims(shape)
    found.desc.type = trt.float16 if type_ == "FP16" else trt.float32
    found.desc.format = getattr(trt.TensorFormat, layout)
    return found


def answer(trt: Any, registry: Registry, question: dict[str, Any]) -> dict[str, Any]:
    creator = registry.get_creator(question["name"], question["version"], question["namespace"])
    # As the parser does: only the creator's names, in its order; int32 for an ONNX INT.
    values = {ATTRIBUTE: keep_layer(layer_of(question["layer"]))}
    fields = [
        trt.PluginField(
            field.name, np.array([values[field.name]], np.int32), trt.PluginFieldType.INT32
        )
        for field in creator.field_names
    ]
    plugin = creator.create_plugin(
        question["name"],
        question["namespace"],
        trt.PluginFieldCollection(fields),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )
    shapes, count = question["shapes"], len(question["shapes"])
    type_ = trt.float16 if question["type"] == "FP16" else trt.float32
    types = plugin.get_output_data_types([type_] * count, [len(shape) for shape in shapes])
    dims = [[Expression(size) for size in shape] for shape in shapes]
    (output,) = plugin.get_output_shapes(dims, [], Builder())
    y_shape = [expression.value for expression in output]
    layouts = question["layouts"]
    tensors = [
        described(trt, shape, question["type"], layout)
        for shape, layout in zip([*shapes, y_shape], layouts, strict=True)
    ]
    combinations = plugin.get_supported_format_combinations(tensors, count)
    plugin.configure_plugin(tensors[:count], tensors[count:])
    kernels = {}
    for tactic in plugin.get_valid_tactics():
        plugin.set_tactic(tactic)
        launch, extra = SimpleNamespace(), Setter()
        plugin.get_launch_params(dims, tensors, count, launch, extra, Builder())
        descs = [tensor.desc for tensor in tensors]
        entry, ptx = plugin.get_kernel(descs[:count], descs[count:])
        assert sorted(extra) == list(range(extra.nbSymExprs))
        sizes = {name: argument.expr.value for name, argument in vars(launch).items()}
        kernels[tactic] = {
            "entry": entry,
            "ptx": ptx.decode(),
            "launch": sizes,
            "integers": [extra[i].expr.value for i in sorted(extra)],
            "types": sorted({str(argument.dtype) for argument in extra.values()}),
        }
    return {
        "y_shape": y_shape,
        "y_type": [str(found) for found in types],
        "combinations": [(found.type.name, found.format.name) for found in combinations],
        "kernels": kernels,
    }


def main() -> None:
    name, *paths = sys.argv[1:]
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
    sys.path[:0] = paths
    registry = Registry()
    trt = load(name, registry)
    # What `import tensorrt.plugin` finds.
    sys.modules["tensorrt.plugin"] = importlib.import_module(f"{name}.plugin")
    register_embedded(trt)
    register_embedded(trt)
    print(json.dumps([answer(trt, registry, q) for q in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()
