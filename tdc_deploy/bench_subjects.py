"""What `bench` times: an ONNX file on ONNX Runtime, or a TensorRT engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import network_of
from tdc_deploy.graph.read import load_checked
from tdc_deploy.graph.shapes import Shape, Shapes, input_shapes
from tdc_deploy.graph.understand import understanding
from tdc_deploy.runtime.engine_info import EngineInfo, engine_info
from tdc_deploy.runtime.session import ENGINE_SUFFIXES
from tdc_deploy.samples import input_types
from tdc_deploy.sidecar import read_sidecar


@dataclass(frozen=True)
class Subject:
    """A model, ready to be timed: `make_runner` gives a new Polygraphy runner of it."""

    path: Path
    dtypes: Mapping[str, np.dtype[Any]]
    sizes: Shapes
    make_runner: Callable[[], Any]
    backend: Mapping[str, str]


def open_subject(path: Path, shapes: Mapping[str, Shape] | None, threads: int) -> Subject:
    """Read a model, or an engine by its suffix.

    Raises:
        TdcError: a bad file or value, or something is missing that an engine needs.
    """
    if path.suffix in ENGINE_SUFFIXES:
        return _open_engine(path, shapes or {})
    from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend(threads)
    model = load_checked(path)
    with understanding(path):
        graph = network_of(model).graph
    sizes = input_shapes(graph, shapes)
    types = input_types(graph)
    return Subject(path, types, sizes, lambda: backend.runner(path), backend.describe())


def _open_engine(path: Path, shapes: Mapping[str, Shape]) -> Subject:
    from tdc_deploy.backends.tensorrt.api import tensorrt, version_of
    from tdc_deploy.backends.tensorrt.requirements import what_is_missing
    from tdc_deploy.backends.tensorrt.runner import EngineRunner, Runnable
    from tdc_deploy.plugin.locate import find_plugin
    from tdc_deploy.runtime.plugin_library import register_plugin

    content, info, sidecar = _read(path)
    sizes = {entry["name"]: tuple(entry["opt"]) for entry in sidecar["inputs"]}
    sizes |= _checked_sizes(shapes, sidecar["inputs"])
    if missing := what_is_missing(info.needs_plugin):
        raise TdcError(
            f"{path} cannot run on this machine; missing: {'; '.join(missing)}",
            fix="time it where it is to run",
        )
    trt = tensorrt()
    info.check_tensorrt(str(trt.__version__))
    if info.needs_plugin:
        register_plugin(trt, find_plugin(version_of(trt)[0]))
    inputs = {entry["name"]: (entry["dtype"], sizes[entry["name"]]) for entry in sidecar["inputs"]}
    outputs = {e["name"]: (e["dtype"], tuple(e["shape"])) for e in sidecar["outputs"]}
    engine = Runnable(content, inputs, outputs)
    return Subject(
        path,
        {name: np.dtype(dtype) for name, (dtype, _) in inputs.items()},
        sizes,
        lambda: EngineRunner(engine),
        sidecar["backend"],
    )


def _read(path: Path) -> tuple[bytes, EngineInfo, dict[str, Any]]:
    """The engine, and what its sidecar says of where it runs and of what it takes."""
    if not path.is_file():
        raise TdcError(f"no engine at {path}", fix="check the path")
    content = path.read_bytes()
    sidecar = read_sidecar(path, content)
    if sidecar is None:
        raise TdcError(
            f"{path} has no sidecar",
            expected=f"{path.name}.json beside it, which says what it takes",
        )
    return content, engine_info(sidecar), sidecar


def _checked_sizes(shapes: Mapping[str, Shape], inputs: list[dict[str, Any]]) -> dict[str, Shape]:
    ranges = {entry["name"]: (entry["min"], entry["max"]) for entry in inputs}
    for name, shape in shapes.items():
        if name not in ranges:
            raise TdcError(f"no input is called {name!r}", expected=", ".join(ranges))
        low, high = ranges[name]
        fits = len(shape) == len(low) and all(
            a <= size <= b for a, size, b in zip(low, shape, high, strict=True)
        )
        if not fits:
            raise TdcError(f"{name}: {list(shape)}", expected=f"from {low} to {high}")
    return dict(shapes)
