"""TuckerConv and TuckerConvAdd as ahead-of-time Python plugins of TensorRT (10.9 and newer).

Only the builder runs them: they tell it shapes, formats and tactics, and hand it a compiled kernel with
symbolic expressions of its launch, all of which it puts into the engine.

A node's one attribute that they read is the number of a layer that this process has kept. It is one,
because TensorRT hands attributes on by position, and a single number, because its bindings before 10.16
garble longer ones with NumPy 2: every element is the first.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.backends.tensorrt.embedded_kernels import ENTRY
from tdc_deploy.backends.tensorrt.embedded_layer import (
    LAYOUTS,
    EmbeddedLayer,
    blocks,
    kernel_integers,
)
from tdc_deploy.errors import TdcError
from tdc_deploy.graph import functions as op

# TensorRT keeps the empty one, the library's, to itself.
NAMESPACE = "tdc"

INPUTS = ("X", "first", "first_bias", "core", "core_bias", "last", "bias")
INPUTS_OF = {op.TUCKER_CONV: INPUTS, op.TUCKER_CONV_ADD: (*INPUTS, "R")}
_PIXEL_INPUTS = ("X", "R")

ATTRIBUTE = "layer"
_KEPT: dict[int, EmbeddedLayer] = {}


def keep_layer(layer: EmbeddedLayer) -> int:
    """Keep a layer for the plugins, and return the value of its node's attribute: the same for equals."""
    number = crc32(repr(layer).encode()) >> 1  # an int32 that is not negative
    while _KEPT.setdefault(number, layer) != layer:
        number = (number + 1) & 0x7FFFFFFF
    return number


def _kept(attribute: NDArray[np.int32]) -> EmbeddedLayer:
    return _KEPT[int(attribute[0])]


def register_embedded(trt: Any) -> None:
    """Register both plugins with TensorRT, once in a process.

    Raises:
        TdcError: this TensorRT has no ahead-of-time plugins, or its package lacks them.
    """
    if not hasattr(trt, "QuickPluginCreationRequest"):
        raise TdcError(
            f"--plugin-mode embedded with TensorRT {trt.__version__}",
            expected="TensorRT 10.9 or newer, with ahead-of-time Python plugins",
            fix="build with --plugin-mode library",
        )
    plugin = _plugin_module(trt)
    known = getattr(plugin.op, NAMESPACE, None)
    for name, inputs in INPUTS_OF.items():
        if not hasattr(known, name):
            _register(plugin, f"{NAMESPACE}::{name}", inputs)


def _plugin_module(trt: Any) -> Any:
    """`tensorrt.plugin`, which some of pip's packages (10.9 is one) have only in `tensorrt_bindings`."""
    names = [f"{package}.plugin" for package in (trt.__name__, "tensorrt_bindings")]
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
    raise TdcError(
        f"TensorRT {trt.__version__} without its Python plugins",
        expected=f"the module {' or '.join(names)}",
        fix="install TensorRT's Python package whole, or build with --plugin-mode library",
    )


def _register(plugin: Any, plugin_id: str, inputs: tuple[str, ...]) -> None:
    """TensorRT reads the functions' signatures, so each gets one made of its own classes."""
    described = [(name, plugin.TensorDesc) for name in inputs]
    layer = [(ATTRIBUTE, NDArray[np.int32])]
    outputs = [("outputs", tuple[plugin.TensorDesc])]
    results = tuple[str, str, plugin.KernelLaunchParams, plugin.SymIntExprs]

    def describe(*tensors: Any, **attributes: Any) -> Any:
        return _describe(plugin, tensors, _kept(attributes[ATTRIBUTE]))

    def autotune(*arguments: Any) -> Any:
        return [_combination(plugin, inputs, _kept(arguments[len(inputs)]))]

    def aot_impl(*arguments: Any) -> Any:
        tensors, attribute, (output,), tactic = arguments[:-3], *arguments[-3:]
        return _launch(plugin, tensors, _kept(attribute), output, tactic)

    plugin.register(plugin_id)(_signed(describe, [*described, *layer], plugin.TensorDesc))
    combinations = list[plugin.AutoTuneCombination]
    plugin.autotune(plugin_id)(_signed(autotune, [*described, *layer, *outputs], combinations))
    arguments = [*described, *layer, *outputs, ("tactic", int)]
    plugin.aot_impl(plugin_id)(_signed(aot_impl, arguments, results))


def _signed(
    function: Callable[..., Any], parameters: list[tuple[str, Any]], result: Any
) -> Callable[..., Any]:
    function.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)
            for name, annotation in parameters
        ],
        return_annotation=result,
    )
    return function


def _describe(plugin: Any, tensors: tuple[Any, ...], layer: EmbeddedLayer) -> Any:
    """Y's shape and type."""
    x, last = tensors[op.X].shape_expr, tensors[op.LAST].shape_expr
    shape = (x[0], last[0], layer.out_size(0, x[2]), layer.out_size(1, x[3]))
    return plugin.from_shape_expr(shape, tensors[op.X].dtype)


def _combination(plugin: Any, inputs: tuple[str, ...], layer: EmbeddedLayer) -> Any:
    """The one type and layout of every tensor, and the tactics."""
    pixels = LAYOUTS[layer.type]
    layouts = [pixels if name in _PIXEL_INPUTS else "LINEAR" for name in inputs]
    types = [layer.type] * (len(inputs) + 1)
    return plugin.AutoTuneCombination(
        ",".join(types), ",".join([*layouts, pixels]), sorted(layer.kernels)
    )


def _launch(
    plugin: Any, tensors: tuple[Any, ...], layer: EmbeddedLayer, output: Any, tactic: int
) -> tuple[str, str, Any, Any]:
    """The kernel of a tactic: its name, its PTX, its launch, and the integers that it takes."""
    kernel = layer.kernels[tactic]
    x, y = tensors[op.X].shape_expr, output.shape_expr
    launch = plugin.KernelLaunchParams()
    launch.grid_x = blocks(kernel, x[0], y[2], y[3], plugin.cdiv)
    launch.block_x = kernel.threads
    launch.shared_mem = kernel.shared_bytes
    first, core, last = (tensors[i].shape_expr for i in (op.FIRST, op.CORE, op.LAST))
    integers = plugin.SymIntExprs.from_tuple(kernel_integers(x, first, core, last, y))
    return ENTRY, Path(kernel.ptx).read_text(encoding="utf-8"), launch, integers
